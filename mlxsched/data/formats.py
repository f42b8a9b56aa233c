"""The formats of records, told by their keys.

    chat         {"messages": [{"role": .., "content": ..}, ..], "tools": [..]}
    completion   {"prompt": .., "completion": ..}, both strings or both lists of messages
    text         {"text": ..}
    ShareGPT     {"conversations": [{"from": "human", "value": ..}, {"from": "gpt", "value": ..}]}
    Alpaca       {"instruction": .., "input": .., "output": ..}

Of a chat every assistant turn is predicted, of a pair the completion, of a text everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.data.messages import (
    ROLES,
    Messages,
    encodable,
    from_alpaca,
    from_sharegpt,
    read_messages,
    read_tools,
    unscored,
)
from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem, harmless, looks_like, type_name

# Keys of question and answer in well-known data sets: guessing their order would be wrong in some of them.
_PAIRS = (
    ("question", "answer"),
    ("query", "response"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("input", "output"),
    ("problem", "solution"),
)


@dataclass(frozen=True)
class Conversation:
    """Messages for a chat template.

    Args:
        messages: in OpenAI's form.
        tools: definitions of the tools, if any.
        unscored: indices of assistant messages that are never predicted (``"weight": 0``).
        context: the first so many messages are the prompt; assistant messages among them are not predicted
            (unless all tokens are).
    """

    messages: Messages
    tools: list[dict[str, Any]] | None = None
    unscored: frozenset[int] = frozenset()
    context: int = 0


def format_of(record: Mapping[str, Any], features: Features) -> str:
    """The format's name; the first three in mlx-lm's order of preference."""
    if features.prompt in record and features.completion in record:
        return "completion"
    if features.chat in record:
        return "chat"
    if features.text in record:
        return "text"
    if "conversations" in record:
        return "ShareGPT"
    if "instruction" in record and "output" in record:
        return "Alpaca"
    wanted = f'"{features.chat}", "{features.prompt}" and "{features.completion}", or "{features.text}"'
    keys = ", ".join(f'"{harmless(str(key), 30)}"' for key in list(record)[:8]) or "none"
    raise RowProblem(f"needs the key {wanted}; it has {keys}{_hint(record, features)}")


def check_record(record: Mapping[str, Any], features: Features, mask_prompt: bool) -> None:
    """Raise `RowProblem` for a problem of a record that does not depend on the tokenizer."""
    name = format_of(record, features)
    if name == "text":
        read_text(record, features.text)
    else:
        scored_turns(read_conversation(record, name, features), mask_prompt)


def _hint(record: Mapping[str, Any], features: Features) -> str:
    usual = Features()
    if features.flags and (
        {usual.prompt, usual.completion} <= record.keys() or {usual.chat, usual.text} & record.keys()
    ):
        return f", so leave {features.flags} out"
    if "chosen" in record and "rejected" in record:
        return '. To train on the preferred answers, convert "chosen" to "messages"'
    for prompt, completion in _PAIRS:
        if prompt in record and completion in record:
            return f". Name them: --prompt-feature {prompt} --completion-feature {completion}"
    names = (features.chat, features.prompt, features.completion, features.text)
    return looks_like(list(record)[:8], (*names, "conversations", "instruction", "output"))


def read_text(record: Mapping[str, Any], key: str, *, may_be_empty: bool = False) -> str:
    """The string under ``key``; raises `RowProblem` for anything else."""
    value = record[key]
    if not isinstance(value, str):
        raise RowProblem(f'"{key}" must be a string, not {type_name(value)}')
    if not value and not may_be_empty:
        raise RowProblem(f'"{key}" is empty')
    return encodable(value, f'"{key}"')


def scored_turns(chat: Conversation, mask_prompt: bool) -> list[int]:
    """Indices of the assistant messages to be predicted; raises `RowProblem` if there is no target."""
    turns = [i for i, message in enumerate(chat.messages) if message["role"] == "assistant"]
    scored = [i for i in turns if i >= chat.context and i not in chat.unscored]
    if mask_prompt and not turns:
        roles = dict.fromkeys(message["role"] for message in chat.messages)
        raise RowProblem(
            "no assistant message: nothing to train on (--no-mask-prompt trains on all tokens)"
            + looks_like(roles, ROLES)
        )
    if mask_prompt and not scored:
        raise RowProblem("every assistant message has weight 0: nothing to train on")
    return scored


def read_conversation(record: Mapping[str, Any], format_name: str, features: Features) -> Conversation:
    """The conversation of a record of any format but text; raises `RowProblem`."""
    tools, context = read_tools(record.get("tools")), 0
    if format_name == "completion":
        prompt = _side(record, features.prompt, "user")
        messages = prompt + _side(record, features.completion, "assistant")
        context = len(prompt)
        if not any(message["role"] == "assistant" for message in messages[context:]):
            raise RowProblem(f'"{features.completion}" has no assistant message')
    elif format_name == "ShareGPT":
        messages = read_messages(from_sharegpt(record["conversations"]), "conversations")
        if isinstance(record.get("system"), str) and record["system"]:
            messages.insert(0, {"role": "system", "content": encodable(record["system"], 'the key "system"')})
    elif format_name == "Alpaca":
        messages = read_messages(from_alpaca(record), "instruction")
    else:
        messages = read_messages(record[features.chat], features.chat)
    return Conversation(messages, tools, unscored(messages), context)


def _side(record: Mapping[str, Any], key: str, role: str) -> Messages:
    """One side of a pair: a string, or a list of messages as TRL has it."""
    if isinstance(record[key], list):
        return read_messages(record[key], key)
    text = read_text(record, key, may_be_empty=role == "user")
    return [{"role": role, "content": text}]
