"""Make sure that a chat template writes the tool calls and tool results of a conversation.

Two things go wrong silently. OpenAI's format has the arguments of a call as a JSON string; some templates need
that, others need a mapping, and given the wrong one they fail, or write a string within a string. And some templates
(such as those of Granite 3.3, Phi-3.5 and DeepSeek-R1) leave out calls or results altogether, so that a row teaches
the model to say nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from mlxsched.data.messages import Messages
from mlxsched.data.problems import RowProblem, harmless

Render = Callable[[Messages], str]
_MARK = "zq"  # begins the words that stand for names, arguments and results; no template contains it


def uses_tools(messages: Messages) -> bool:
    """Whether there is a tool call or a tool result."""
    return any(message.get("tool_calls") or message["role"] == "tool" for message in messages)


def fit_tool_calls(messages: Messages, render: Render) -> Messages:
    """The messages, with arguments in the form (string or mapping) that the template writes correctly.

    The form of the row is kept if it works. Raises `RowProblem` if in no form every call and every result appears.
    """
    problems: list[str] = []
    usable: Messages | None = None
    for form in _forms(messages):
        try:
            text = render(form)
        except RowProblem as problem:
            problems.append(problem.what)
            continue
        left_out = _left_out(form, text, render)
        if left_out:
            problems.insert(0, f"the chat template leaves out {left_out}")
        elif not _is_garbled(form, text):
            return form
        else:
            usable = usable or form
    if usable is None:
        raise RowProblem(problems[0])
    return usable


def _forms(messages: Messages) -> list[Messages]:
    """The messages as given, with arguments as mappings, and with arguments as JSON strings."""
    forms = [messages]
    for convert in (_as_mapping, _as_string):
        converted = _with_arguments(messages, convert)
        if converted not in forms:
            forms.append(converted)
    return forms


def _as_mapping(arguments: Any) -> Any:
    parsed = _parsed(arguments)
    return parsed if isinstance(parsed, dict) else arguments


def _as_string(arguments: Any) -> Any:
    return json.dumps(arguments, ensure_ascii=False) if isinstance(arguments, (dict, list)) else arguments


def _parsed(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _with_arguments(messages: Messages, convert: Callable[[Any], Any]) -> Messages:
    return _with_calls(
        messages,
        lambda function: {
            key: convert(value) if key == "arguments" else value for key, value in function.items()
        },
    )


def _with_calls(messages: Messages, convert: Callable[[dict[str, Any]], dict[str, Any]]) -> Messages:
    """A copy of the messages with every function (name and arguments) converted."""
    copies = []
    for message in messages:
        calls = message.get("tool_calls")
        if calls:
            converted = [
                {**call, "function": convert(call["function"])} if "function" in call else convert(call)
                for call in calls
            ]
            message = {**message, "tool_calls": converted}
        copies.append(message)
    return copies


def _functions(messages: Messages) -> list[dict[str, Any]]:
    return [call.get("function", call) for message in messages for call in message.get("tool_calls") or []]


def _is_garbled(messages: Messages, text: str) -> bool:
    """Whether arguments are written as a string within a string, or as Python writes a mapping."""
    for function in _functions(messages):
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            twice = {json.dumps(arguments), json.dumps(arguments, ensure_ascii=False)}
            if any(form in text for form in twice):
                return True
        elif isinstance(arguments, dict) and "'" in repr(arguments) and repr(arguments) in text:
            return True
    return False


def _left_out(messages: Messages, text: str, render: Render) -> str:
    """What the template does not write, or "".

    Looking for the names themselves would not do: the name of a tool is in its definition too, and a result such as
    "4" is found anywhere. So the conversation is rendered once more with unique words in their place.
    """
    marked, marks = _marked(messages)
    try:
        found = render(marked)
    except RowProblem:  # the template looks into the arguments or results
        found = text
        marks = [(name, what) for name, what in _plain_words(messages) if name.strip()]
    return next((what for mark, what in marks if mark not in found), "")


def _marked(messages: Messages) -> tuple[Messages, list[tuple[str, str]]]:
    """A copy with unique words for names, strings in arguments and results; and each word with what it stands for."""
    marks: list[tuple[str, str]] = []

    def mark(what: str) -> str:
        marks.append((f"{_MARK}{len(marks)}{_MARK}", what))
        return marks[-1][0]

    def mark_function(function: dict[str, Any]) -> dict[str, Any]:
        call = f'the tool call "{harmless(str(function["name"]), 40)}"'
        copy = {**function, "name": mark(call)}
        if "arguments" in function:
            copy["arguments"] = _marked_arguments(function["arguments"], lambda: mark(f"arguments of {call}"))
        return copy

    copies = _with_calls(messages, mark_function)
    for index, message in enumerate(copies):
        if message["role"] == "tool" and message["content"].strip():
            copies[index] = {**message, "content": mark(f"the tool's result in message {index + 1}")}
    return copies, marks


def _marked_arguments(arguments: Any, mark: Callable[[], str]) -> Any:
    parsed = _parsed(arguments)
    if not isinstance(parsed, dict):
        return mark() if isinstance(arguments, str) and arguments else arguments
    copy = {key: mark() if isinstance(value, str) and value else value for key, value in parsed.items()}
    return json.dumps(copy, ensure_ascii=False) if isinstance(arguments, str) else copy


def _plain_words(messages: Messages) -> list[tuple[str, str]]:
    names = [str(function["name"]) for function in _functions(messages)]
    calls = [(name, f'the tool call "{harmless(name, 40)}"') for name in names]
    results = [
        (message["content"].strip(), f"the tool's result in message {index + 1}")
        for index, message in enumerate(messages)
        if message["role"] == "tool"
    ]
    return calls + results
