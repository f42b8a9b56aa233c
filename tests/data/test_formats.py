"""Rows of other tools become the same conversations as rows of messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import chat_templates as templates
import pytest

from mlxsched.data.formats import Conversation, format_of, read_conversation
from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem
from mlxsched.errors import DataError

FEATURES = Features()
USER = {"role": "user", "content": "hi"}
ASSISTANT = {"role": "assistant", "content": "hello"}


def read(record: dict[str, Any]) -> Conversation:
    return read_conversation(record, format_of(record, FEATURES), FEATURES)


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [USER, ASSISTANT]},
        {"prompt": [USER], "completion": [ASSISTANT]},
        {"prompt": "hi", "completion": [ASSISTANT]},
        {"prompt": [USER], "completion": "hello"},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"conversations": [USER, ASSISTANT]},
        {"instruction": "hi", "output": "hello"},
        {"instruction": "hi", "input": "", "output": "hello", "system": ""},
    ],
)
def test_formats_of_the_same_conversation(record: dict[str, Any]) -> None:
    assert read(record).messages == [USER, ASSISTANT]


def test_the_prompt_of_a_pair_is_context(tokenizer: Any, scored: Callable[..., list[str]]) -> None:
    earlier = [USER, {"role": "assistant", "content": "four"}, {"role": "user", "content": "sum"}]
    record = {"prompt": earlier, "completion": [ASSISTANT]}
    assert scored(tokenizer, record) == ["hello<|im_end|>"]
    assert scored(tokenizer, {"messages": [*earlier, ASSISTANT]}) == ["four<|im_end|>", "hello<|im_end|>"]


def test_alpaca_joins_instruction_and_input() -> None:
    record = {
        "instruction": "Add.", "input": "2, 2", "output": "4", "system": "Be brief.", "history": [["a", "b"]],
    }  # fmt: skip
    assert [(m["role"], m["content"]) for m in read(record).messages] == [
        ("system", "Be brief."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "Add.\n\n2, 2"),
        ("assistant", "4"),
    ]


def test_sharegpt_with_a_system_text_and_a_tool() -> None:
    call = {"name": "sum", "arguments": {"a": 2}}
    turns = [
        {"from": "human", "value": "2+2?"},
        {"from": "function_call", "value": json.dumps(call)},
        {"from": "observation", "value": "4"},
        {"from": "gpt", "value": "four", "weight": 0},
        {"from": "gpt", "value": "4"},
    ]
    found = read({"conversations": turns, "system": "Be brief.", "tools": json.dumps([{"name": "sum"}])})
    assert [m["role"] for m in found.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "assistant",
    ]
    assert found.messages[2]["tool_calls"] == [{"type": "function", "function": call}]
    assert found.unscored == {4}
    assert found.tools == [{"name": "sum"}]


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ({"conversations": [{"from": "alien", "value": "hi"}]}, 'message 1: "from" must be human, gpt'),
        (
            {"conversations": [{"value": "hi"}]},
            '"from" must be human, gpt, system, tool or function_call; got null',
        ),
        ({"conversations": [{"from": "humn", "value": "hi"}]}, 'got "humn"; "humn" looks like "human"'),
        ({"conversations": [{"from": "gpt", "valeu": "hi"}]}, '"valeu" looks like "value"'),
        ({"conversations": [{"from": "gpt"}]}, 'message 1 has no "value"; it has "from"'),
        ({"conversations": "hi"}, '"conversations" must be a list of messages, not a string'),
        ({"conversations": [{"from": "function_call", "value": "x"}]}, "message 1: a function_call must be"),
        ({"instruction": 3, "output": "a"}, '"instruction" must be a string, not a number'),
        ({"instruction": "a", "output": ""}, "the assistant's content is empty"),
        ({"instruction": "a", "output": "b", "history": [1]}, '"history" must be a list of pairs'),
        ({"instruction": "a", "output": "b", "history": 1}, '"history" must be a list of pairs'),
        ({"prompt": [USER], "completion": [USER]}, '"completion" has no assistant message'),
        ({"prompt": 3, "completion": "a"}, '"prompt" must be a string, not a number'),
        (
            {"messages": [USER, ASSISTANT], "tools": "[{"},
            '"tools" must be a list of objects, not a string (Expecting',
        ),
        ({"messages": [USER, ASSISTANT], "tools": "3"}, '"tools" must be a list of objects, not a number'),
        ({"question": "a", "answer": "b"}, "--prompt-feature question --completion-feature answer"),
        ({"chosen": [], "rejected": []}, 'convert "chosen" to "messages"'),
    ],
)
def test_what_is_wrong_or_how_to_convert(record: dict[str, Any], what: str) -> None:
    with pytest.raises(RowProblem) as caught:
        read(record)
    assert what in str(caught.value)


def test_the_flags_of_the_hint_work(tokenizer: Any, scored: Callable[..., list[str]]) -> None:
    features = Features(prompt="question", completion="answer")
    found = scored(tokenizer, {"question": "hi", "answer": "hello"}, features=features)
    assert found == ["hello<|im_end|>"]


def test_alpaca_without_a_template_is_refused(
    tokenizers: dict[str, Any], scored: Callable[..., list[str]]
) -> None:
    with pytest.raises(DataError, match="no chat template"):
        scored(tokenizers["plain"], {"instruction": "hi", "output": "hello"})


@pytest.mark.parametrize(
    "record",
    [
        {"messages": [USER, {"role": "assistant", "content": "\ud800"}]},
        {"messages": [{"role": "\ud800", "content": "hi"}, ASSISTANT]},
        {"conversations": [{"from": "\ud800", "value": "hi"}]},
        {"instruction": "\ud800", "output": "a"},
        {"prompt": "a", "completion": [{"role": "assistant", "content": "\udfff"}]},
        {"text\ud800": "a"},
    ],
)
def test_lone_surrogates_are_a_problem_of_the_row(
    record: dict[str, Any], tokenizer: Any, scored: Callable[..., list[str]]
) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl:1: ") as caught:
        scored(tokenizer, record)
    assert str(caught.value).encode()


def test_a_lone_surrogate_in_a_tool_is_a_problem_of_the_row(
    with_template: Callable[[str], Any], scored: Callable[..., list[str]]
) -> None:
    tokenizer = with_template(templates.TOOLS_AT_THE_TOP + templates.CALLS_AS_PRINTED)
    with pytest.raises(DataError, match="the rendered chat holds half of a surrogate pair"):
        scored(tokenizer, {"messages": [USER, ASSISTANT], "tools": [{"name": "\ud800"}]})
