"""Check the messages and tools of a record, and bring them into the form that chat templates expect.

That form is OpenAI's: ``{"role": .., "content": .., "tool_calls": [..]}``, with content as a string.
"""

from __future__ import annotations

import json
from typing import Any

from mlxsched.data.problems import RowProblem, harmless, looks_like, type_name

Message = dict[str, Any]
Messages = list[Message]

# ShareGPT's names of the speakers, as data sets use them.
_SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}

ROLES = ("user", "assistant", "system", "tool", "function", "developer")
"""Common roles, to suggest for a misspelled one; templates may have others."""

# A message with one of these roles, a content and nothing else skips the other checks, which take four times as long.
_USUAL_ROLES = ("user", "assistant", "system")


def encodable(text: str, name: str) -> str:
    """``text``, if UTF-8 can hold it: a lone surrogate (half of a pair) has no encoding and can't be tokenized."""
    if text.isascii():  # known without looking at the characters
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowProblem(f"{name} holds half of a surrogate pair or bytes that are not UTF-8") from None
    return text


def read_messages(value: Any, key: str) -> Messages:
    """The messages under ``key``, checked; raises `RowProblem`."""
    if not isinstance(value, list):
        raise RowProblem(f'"{key}" must be a list of messages, not {type_name(value)}')
    if not value:
        raise RowProblem(f'"{key}" is empty')
    return [_message(message, f"message {number}") for number, message in enumerate(value, 1)]


def _message(message: Any, name: str) -> Message:
    if not isinstance(message, dict):
        raise RowProblem(f"{name} must be an object, not {type_name(message)}")
    role = message.get("role")
    content = message.get("content")
    if type(content) is str and content and role in _USUAL_ROLES and len(message) == 2:
        return {"role": role, "content": encodable(content, f"{name}: content")}
    if not isinstance(role, str) or not role:
        problem = "has no role" if "role" not in message else f"has {type_name(role)} for its role"
        near = looks_like(message, ("role",))
        raise RowProblem(f'{name} {problem}; it needs "role": "user", "assistant" or "system"{near}')
    message = _without_legacy(message)
    calls = message.get("tool_calls")
    if calls is not None:
        _check_calls(calls, name)
    if role == "assistant" and calls and message.get("content") is None:
        return {**message}  # content stays null: templates tell it from ""
    if "content" not in message:
        near = looks_like(message, ("content",))
        raise RowProblem(f'{name} has no "content"; it has {_keys(message)}{near}')
    content = _content(message["content"], name)
    if role == "assistant" and not content and not calls:
        raise RowProblem(f"{name}: the assistant's content is empty")
    role = message["role"]
    return {**message, "role": encodable(role, f"{name}: the role"), "content": content}


def _keys(message: Message) -> str:
    return ", ".join(f'"{harmless(str(key), 30)}"' for key in list(message)[:8])


def _without_legacy(message: Message) -> Message:
    """OpenAI's older ``function_call`` and role ``function`` as ``tool_calls`` and role ``tool``."""
    message = {**message}
    if message["role"] == "function":
        message["role"] = "tool"
    call = message.pop("function_call", None)
    if call is not None and "tool_calls" not in message:
        message["tool_calls"] = [{"type": "function", "function": call}]
    return message


def _check_calls(calls: Any, name: str) -> None:
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise RowProblem(f"{name}: tool_calls must be a list of objects, not {type_name(calls)}")
    for call in calls:
        function = call.get("function", call)
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise RowProblem(f'{name}: a tool call needs a function with a "name"')


def _content(content: Any, name: str) -> str:
    if isinstance(content, list):  # OpenAI's parts
        return "".join(_part(part, name) for part in content)
    if not isinstance(content, str):
        raise RowProblem(f"{name}: content must be a string, not {type_name(content)}")
    return encodable(content, f"{name}: content")


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RowProblem(f"{name}: only parts of type text can be trained on")
    return encodable(part["text"], f"{name}: content")


def read_tools(value: Any) -> list[dict[str, Any]] | None:
    """The tools of a record: a list of objects, or such a list as a JSON string, as tables store it."""
    why = ""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else None
        except (ValueError, RecursionError) as error:
            why = f" ({harmless(str(error), 60)})"
    if value is not None and not (isinstance(value, list) and all(isinstance(tool, dict) for tool in value)):
        raise RowProblem(f'"tools" must be a list of objects, not {type_name(value)}{why}')
    return value or None


def unscored(messages: Messages) -> frozenset[int]:
    """Indices of the assistant messages that have ``"weight": 0``, as in OpenAI's chat format."""
    found = set()
    for index, message in enumerate(messages):
        weight = message.get("weight")
        if message["role"] == "assistant" and weight is not None:
            if not isinstance(weight, (int, float)) or weight not in (0, 1):
                shown = harmless(json.dumps(weight), 30)
                raise RowProblem(f'message {index + 1}: "weight" must be 0 or 1; got {shown}')
            if not weight:
                found.add(index)
    return frozenset(found)


def from_sharegpt(turns: Any) -> Messages:
    """Messages of ShareGPT's ``[{"from": "human", "value": ..}, {"from": "gpt", "value": ..}]``."""
    if not isinstance(turns, list):
        raise RowProblem(f'"conversations" must be a list of messages, not {type_name(turns)}')
    return [_sharegpt_message(turn, f"message {number}") for number, turn in enumerate(turns, 1)]


def _sharegpt_message(turn: Any, name: str) -> Message:
    if not isinstance(turn, dict):
        raise RowProblem(f"{name} must be an object, not {type_name(turn)}")
    if "role" in turn:  # some data sets keep OpenAI's messages under this key
        return turn
    speaker = turn.get("from")
    role = _SHAREGPT_ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        shown, near = harmless(json.dumps(speaker), 30), looks_like([speaker], tuple(_SHAREGPT_ROLES))
        raise RowProblem(
            f'{name}: "from" must be human, gpt, system, tool or function_call; got {shown}{near}'
        )
    others = {key: value for key, value in turn.items() if key not in ("from", "value")}
    if speaker == "function_call":
        return {**others, "role": role, "content": None, "tool_calls": [_call(turn.get("value"), name)]}
    if "value" not in turn:
        raise RowProblem(f'{name} has no "value"; it has {_keys(turn)}{looks_like(turn, ("value",))}')
    return {**others, "role": role, "content": turn["value"]}


def _call(value: Any, name: str) -> dict[str, Any]:
    try:
        call = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict) or "name" not in call:
        raise RowProblem(f'{name}: a function_call must be {{"name": .., "arguments": ..}} as JSON')
    return {"type": "function", "function": call}


def from_alpaca(record: Any) -> Messages:
    """Messages of Alpaca's ``{"instruction": .., "input": .., "output": ..}``, with optional system and history.

    The instruction and the input, separated by a blank line, are what the user says.
    """
    messages: Messages = []
    if record.get("system"):
        messages.append({"role": "system", "content": record["system"]})
    history = record.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in history
    ):
        raise RowProblem('"history" must be a list of pairs of instruction and output')
    for question, answer in history:
        messages += _exchange(question, answer)
    asked = [record["instruction"], record.get("input") or ""]
    for key, text in zip(("instruction", "input"), asked, strict=True):
        if not isinstance(text, str):
            raise RowProblem(f'"{key}" must be a string, not {type_name(text)}')
    return messages + _exchange("\n\n".join(text for text in asked if text), record["output"])


def _exchange(question: Any, answer: Any) -> Messages:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
