"""From a record (a JSON object) to one text and the parts of it that are to be predicted.

    chat         {"messages": [{"role": .., "content": ..}, ..], "tools": [..]}   every assistant turn
    completion   {"prompt": .., "completion": ..}                                 the completion
    text         {"text": ..}                                                     everything

The first two go through the tokenizer's chat template; a prompt and its completion are joined as they stand
where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.data.chat import ChatTemplate, Messages, Span
from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem, harmless, type_name

# Every template knows these, and may reword what they say (thinking is stripped, results are wrapped).
_KNOWN_ROLES = ("user", "assistant", "tool")


@dataclass(frozen=True)
class Rendered:
    """One row as text; ``spans`` are the characters to be predicted, None for all of them."""

    text: str
    spans: tuple[Span, ...] | None
    answer: str | None = None
    raw: bool = False  # not from a template: the tokenizer adds its own marks, and an end is appended
    lost_turns: int = 0


def format_of(record: Mapping[str, Any], features: Features) -> str:
    """``completion``, ``chat`` or ``text``; the same order of preference as mlx-lm's."""
    if features.prompt in record and features.completion in record:
        return "completion"
    if features.chat in record:
        return "chat"
    if features.text in record:
        return "text"
    wanted = f'"{features.chat}", "{features.prompt}" and "{features.completion}", or "{features.text}"'
    keys = ", ".join(f'"{harmless(str(key), 30)}"' for key in list(record)[:8]) or "none"
    raise RowProblem(f"needs the key {wanted}; it has {keys}")


class Renderer:
    """Renders records with one tokenizer's template (None when it has none)."""

    def __init__(self, template: ChatTemplate | None, mask_prompt: bool) -> None:
        self._template = template
        self._mask_prompt = mask_prompt

    def render(self, record: Mapping[str, Any], format_name: str, features: Features) -> Rendered:
        """The record as text and spans; raises `RowProblem` when it can't be used."""
        if format_name == "text":
            text = _string(record, features.text)
            if not text:
                raise RowProblem(f'"{features.text}" is empty')
            return Rendered(text, None, raw=True)
        if format_name == "completion":
            return self._completion(record, features)
        return self._chat(_messages(record, features.chat), _tools(record))

    def _completion(self, record: Mapping[str, Any], features: Features) -> Rendered:
        prompt, completion = _string(record, features.prompt), _string(record, features.completion)
        if not completion:
            raise RowProblem(f'"{features.completion}" is empty')
        if self._template is None:
            return Rendered(
                prompt + completion, ((len(prompt), len(prompt + completion)),), completion, raw=True
            )
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
        return self._chat(turns, _tools(record))

    def _chat(self, messages: Messages, tools: Any) -> Rendered:
        if self._template is None:
            raise RowProblem(
                "the tokenizer has no chat template; use a chat model, or rows with a prompt and a completion"
            )
        if self._mask_prompt and not any(message["role"] == "assistant" for message in messages):
            raise RowProblem(
                "no assistant message: nothing to train on (--no-mask-prompt trains on all tokens)"
            )
        text, spans, lost = self._template.spans(messages, tools)
        _encodable(text, "the rendered chat")
        for message in messages:
            if message["role"] not in _KNOWN_ROLES and message["content"].strip() not in text:
                raise RowProblem(
                    f'the chat template leaves out what the role "{harmless(message["role"], 30)}" says'
                )
        if self._mask_prompt and not spans:
            raise RowProblem(
                "the assistant's turns can't be told from the rest in this chat template's output"
            )
        last_found = bool(spans) and spans[-1][1] == len(text)
        return Rendered(text, tuple(spans), _answer(messages) if last_found else None, lost_turns=lost)


def _answer(messages: Messages) -> str | None:
    """What the last message says, when it is the assistant's and is text alone."""
    last = messages[-1]
    if last["role"] != "assistant" or last.get("tool_calls"):
        return None
    return str(last["content"])


def _string(record: Mapping[str, Any], key: str) -> str:
    value = record[key]
    if not isinstance(value, str):
        raise RowProblem(f'"{key}" must be a string, not {type_name(value)}')
    return _encodable(value, f'"{key}"')


def _encodable(value: str, name: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RowProblem(f"{name} holds half of a surrogate pair or bytes that are not UTF-8") from None
    return value


def _messages(record: Mapping[str, Any], key: str) -> Messages:
    messages = record[key]
    if not isinstance(messages, list):
        raise RowProblem(f'"{key}" must be a list of messages, not {type_name(messages)}')
    if not messages:
        raise RowProblem(f'"{key}" is empty')
    return [_message(message, f"message {number}") for number, message in enumerate(messages, 1)]


def _message(message: Any, name: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise RowProblem(f"{name} must be an object, not {type_name(message)}")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        problem = "has no role" if "role" not in message else f"has {type_name(role)} for its role"
        raise RowProblem(f'{name} {problem}; it needs "role": "user", "assistant" or "system"')
    calls = message.get("tool_calls")
    if calls is not None and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise RowProblem(f"{name}: tool_calls must be a list of objects, not {type_name(calls)}")
    if role == "assistant" and calls and message.get("content") is None:
        return message  # as it is: to a template, null and "" are not the same
    content = _content(message.get("content"), name)
    if role == "assistant" and not content and not calls:
        raise RowProblem(f"{name}: the assistant's content is empty")
    return {**message, "role": _encodable(role, f"{name}: the role"), "content": content}


def _content(content: Any, name: str) -> str:
    if isinstance(content, list):  # OpenAI's parts: those of text are joined, others can't be trained on
        return "".join(_part(part, name) for part in content)
    if not isinstance(content, str):
        raise RowProblem(f"{name}: content must be a string, not {type_name(content)}")
    return _encodable(content, f"{name}: content")


def _part(part: Any, name: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise RowProblem(f"{name}: only parts of type text can be trained on")
    return _encodable(part["text"], f"{name}: content")


def _tools(record: Mapping[str, Any]) -> Any:
    tools = record.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise RowProblem(f'"tools" must be a list of objects, not {type_name(tools)}')
    return tools or None
