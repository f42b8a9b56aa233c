"""Assistant turns are found whatever a template does to earlier turns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chat_templates as templates
import pytest

from mlxsched.errors import DataError

END = "<|im_end|>"
Scored = Callable[..., list[str]]
WithTemplate = Callable[[str], Any]


def chat(*texts: str, roles: tuple[str, ...] = ("user", "assistant")) -> dict[str, Any]:
    return {"messages": [{"role": roles[i % len(roles)], "content": text} for i, text in enumerate(texts)]}


def thinking(n: int) -> dict[str, Any]:
    pairs = [(f"Question {i}?", f"<think>\nthought {i}\n</think>\n\nanswer {i}") for i in range(n)]
    return chat(*(text for pair in pairs for text in pair))


TWO_IN_A_ROW = {
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "one"},
        {"role": "assistant", "content": "two"},
    ]
}

# A tag that begins like the one that the prompt opens.
CALL = {
    "messages": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "lookup"}}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    ]
}


@pytest.mark.parametrize(
    ("template", "record", "expected"),
    [
        ("QWEN3", thinking(3), [f"answer 0{END}", f"answer 1{END}", f"<think>\nthought 2\n</think>\n\nanswer 2{END}"]),
        ("QWEN35", thinking(2), [f"answer 0{END}", f"thought 1\n</think>\n\nanswer 1{END}"]),
        # A thought that closes a block which the prompt opened.
        ("QWEN35", chat("2+2?", "It is 4.\n</think>\n\nFour."), [f"It is 4.\n</think>\n\nFour.{END}"]),
        # A history turn that begins like the block that the prompt opens.
        ("QWEN35", chat("a", "<table>", "b", "c"), [f"<table>{END}", f"\n</think>\n\nc{END}"]),
        # The model closes the block that the prompt opens, whatever the length of the answer.
        ("NEMOTRON", chat("a", "b", "c", "a long answer"), [f"</think>b{END}", f"</think>a long answer{END}"]),
        ("CALLS_WHILE_THINKING", CALL, [f"<tool>lookup{END}", f"It is 4.{END}"]),
        ("GLM", chat("a", "one", "b", "two"), [f"one{END}", "two"]),
        ("ALWAYS_A_PROMPT", chat("a", "one", "b", "two"), [f"one{END}", f"two{END}"]),
        ("QWEN3", TWO_IN_A_ROW, [f"one{END}", f"<think>\n\n</think>\n\ntwo{END}"]),
        ("OLMO", chat("Question?", "answer 0", "Question!", "answer 1", "?", "last"), ["answer 0", "answer 1", f"last{END}"]),
        ("OLMO", TWO_IN_A_ROW, ["one", f"two{END}"]),
        ("GPT_OSS", chat("a", "one", "b", "two"), ["[/INST]final:one", f"[/INST]final:two{END}"]),
    ],
)  # fmt: skip
def test_every_turn_is_scored_and_nothing_else(
    template: str, record: Any, expected: list[str], with_template: WithTemplate, scored: Scored
) -> None:
    assert scored(with_template(getattr(templates, template)), record) == expected


def test_generation_tags_decide_as_in_transformers(with_template: WithTemplate, scored: Scored) -> None:
    tokenizer = with_template(templates.TAGGED)
    record = chat("Question?", "one", "again", "two")
    assert scored(tokenizer, record) == [f"one{END}\n", f"two{END}\n"]
    fast = tokenizer._tokenizer
    theirs = fast.apply_chat_template(
        record["messages"], return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    mask, ids = theirs["assistant_masks"], theirs["input_ids"]
    text = fast.decode([token for token, score in zip(ids, mask, strict=True) if score])
    assert text == "".join(scored(tokenizer, record))


def test_tags_that_do_not_match_the_messages(with_template: WithTemplate, scored: Scored) -> None:
    tokenizer = with_template(templates.TAGGED_ONCE)
    record = chat("hello", "one", "and", "two")
    assert scored(tokenizer, record) == ["assistant: oneuser: andassistant: two"]
    record["messages"][1]["weight"] = 0
    with pytest.raises(DataError, match="don't match the assistant messages"):
        scored(tokenizer, record)


@pytest.mark.parametrize("template", [templates.TAGGED, templates.QWEN3, templates.OLMO])
def test_messages_of_weight_zero_are_not_scored(
    template: str, with_template: WithTemplate, scored: Scored
) -> None:
    tokenizer = with_template(template)
    record = chat("a", "WRONG", "b", "right", "c", "WRONG")
    for index in (1, 5):
        record["messages"][index]["weight"] = 0
    record["messages"][3]["weight"] = 1
    (run,) = scored(tokenizer, record)
    assert run.startswith("right")
    everything = scored(tokenizer, record, mask_prompt=False)
    assert "right" in "".join(everything)
    assert "WRONG" not in "".join(everything)
    assert "user" in "".join(everything)


@pytest.mark.parametrize(
    ("weights", "what"),
    [((0, 0), "every assistant message has weight 0"), ((0.5, 1), '"weight" must be 0 or 1; got 0.5')],
)
def test_weights_that_cannot_be_used(
    weights: tuple[float, float], what: str, tokenizer: Any, scored: Scored
) -> None:
    record = chat("a", "one", "b", "two")
    record["messages"][1]["weight"], record["messages"][3]["weight"] = weights
    with pytest.raises(DataError, match=what):
        scored(tokenizer, record)


def test_huge_weights_are_a_problem_of_the_row(tokenizer: Any, scored: Scored) -> None:
    for weight in ("1e400", "1" + "0" * 400, '{"a": 1}', "-0.0001"):
        record = (
            '{"messages": [{"role": "user", "content": "a"}, '
            f'{{"role": "assistant", "content": "b", "weight": {weight}}}]}}'
        )
        with pytest.raises(DataError, match=r'train\.jsonl:1: message 2: "weight" must be 0 or 1'):
            scored(tokenizer, record)


def test_a_chat_without_an_answer_is_scored_whole_without_a_mask(tokenizer: Any, scored: Scored) -> None:
    (run,) = scored(tokenizer, chat("hello"), mask_prompt=False)
    assert run == f"user\nhello{END}\n"
