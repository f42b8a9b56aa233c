"""Every assistant turn is found in what templates of several families write; checked by hand-made pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import chat, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data import DataOptions, load_dataset
from mlxsched.data.encode import Encoder
from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem
from mlxsched.data.rendering import Renderer

Piece = tuple[str, bool]

# What each family writes, as pieces (text, is it a target?): written by hand, without the templates.
STYLES = {
    "chatml": ("", "<|im_start|>{role}\n", "{text}<|im_end|>", "\n"),
    "llama3": ("<|begin_of_text|>", "<|start_header_id|>{role}<|end_header_id|>\n\n", "{text}<|eot_id|>", ""),
    "gemma": ("<bos>", "<start_of_turn>{role}\n", "{text}<end_of_turn>", "\n"),
}


def pieces(family: str, messages: list[dict[str, str]]) -> list[Piece]:
    if family == "mistral":
        made: list[Piece] = [("<s>", False)]
        for message in messages:
            said = message["content"]
            asked = message["role"] == "user"
            made.append((f"[INST] {said}[/INST]", False) if asked else (f" {said}</s>", True))
        return made
    start, opening, saying, closing = STYLES[family]
    made = [(start, False)]
    for message in messages:
        role = message["role"]
        name = "model" if family == "gemma" and role == "assistant" else role
        made.append((opening.format(role=name), False))
        made.append((saying.format(text=message["content"]), role == "assistant"))
        made.append((closing, False))
    return made


def tokenize(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> Any:
    encoder = Encoder(tokenizer, options.get("mask_prompt", True))
    renderer = Renderer(encoder.template(), options.get("mask_prompt", True))
    rendered = renderer.render({"messages": messages}, "chat", Features())
    return rendered, encoder.encode([rendered])[0]


def by_character(tokenizer: Any, encoded: Any) -> list[Piece]:
    """Runs of targets and others, as text."""
    runs: list[tuple[list[int], bool]] = []
    for token, target in zip(encoded.tokens.tolist(), encoded.targets.tolist(), strict=True):
        if not runs or runs[-1][1] != target:
            runs.append(([], target))
        runs[-1][0].append(token)
    return [(tokenizer.decode(tokens), target) for tokens, target in runs]


def merged(found: list[Piece]) -> list[Piece]:
    runs: list[Piece] = []
    for text, target in found:
        if text and runs and runs[-1][1] == target:
            runs[-1] = (runs[-1][0] + text, target)
        elif text:
            runs.append((text, target))
    return runs


words = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6
)
said = (
    st.lists(words, min_size=1, max_size=4).map("\n ".join).filter(lambda s: s == s.strip() and "<" not in s)
)


@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "gemma"])
@settings(max_examples=25, deadline=None)
@given(turns=st.lists(st.tuples(said, said), min_size=1, max_size=3))
def test_targets_are_what_the_assistant_says_and_its_end(
    family: str, turns: list[tuple[str, str]], tokenizers: dict[str, Any]
) -> None:
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    _, encoded = tokenize(tokenizers[family], messages)
    assert by_character(tokenizers[family], encoded) == merged(pieces(family, messages))


@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral", "gemma"])
def test_tokens_and_the_last_turn_agree_with_mlx_lm(family: str, tokenizers: dict[str, Any]) -> None:
    from mlx_lm.tuner.datasets import ChatDataset

    tokenizer = tokenizers[family]
    messages = [
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "=SUM(2,2)"},
        {"role": "user", "content": "how are you"},
        {"role": "assistant", "content": "I am fine"},
    ]
    tokens, offset = ChatDataset([], tokenizer, mask_prompt=True).process({"messages": messages})
    _, encoded = tokenize(tokenizer, messages)
    assert encoded.tokens.tolist() == tokens
    assert encoded.prompt_length == offset
    assert encoded.targets[:offset].any()  # mlx-lm trains the last turn only


def test_system_and_tool_turns_are_not_targets(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "the system"},
        {"role": "user", "content": "the user"},
        {"role": "assistant", "content": "hello"},
        {"role": "tool", "content": "the values"},
        {"role": "assistant", "content": "there"},
    ]
    _, encoded = tokenize(tokenizer, messages)
    assert [text for text, target in by_character(tokenizer, encoded) if target] == [
        "hello<|im_end|>",
        "there<|im_end|>",
    ]


def test_a_call_of_a_tool_is_a_target(tokenizers: dict[str, Any]) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.tool_calls[0].name if m.tool_calls else m.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    messages = [
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "sum"}]},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "four"},
    ]
    _, encoded = tokenize(with_template(template, tokenizers), messages)
    targets = [text for text, target in by_character(tokenizers["chatml"], encoded) if target]
    assert targets == ["sum<|im_end|>", "four<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns(tokenizers: dict[str, Any]) -> None:
    messages = [
        {"role": "user", "content": "the user"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nhello"},
        {"role": "user", "content": "two"},
        {"role": "assistant", "content": "there"},
    ]
    rendered, encoded = tokenize(tokenizers["thinking"], messages)
    assert rendered.lost_turns == 0
    assert [text for text, target in by_character(tokenizers["thinking"], encoded) if target] == [
        "hello<|im_end|>",
        "<think>\n\n</think>\n\nthere<|im_end|>",
    ]


def test_a_prompt_that_opens_more_than_an_answer_keeps(tokenizers: dict[str, Any]) -> None:
    # As DeepSeek's and Qwen's thinking models do: a generation begins with <think>, a kept answer has none.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    for answer in ("fine", "<table>", "<", "assistant", "think"):
        _, encoded = tokenize_with(template, tokenizers, [("user", "hello <"), ("assistant", answer)])
        targets = [text for text, target in by_character(tokenizers["chatml"], encoded) if target]
        assert targets == [f"{answer}<|im_end|>"]


@pytest.mark.parametrize(
    "top",
    [
        "{{ messages | map(attribute='content') | join(';') }}",  # each content twice
        "{{ messages | map(attribute='content') | join | length }}",  # at the top, something that depends on it
    ],
)
def test_turns_that_cannot_be_found_are_counted_not_guessed(top: str, tokenizers: dict[str, Any]) -> None:
    template = (
        top
        + "{{ messages | length }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(RowProblem, match="can't be distinguished"):
        tokenize_with(template, tokenizers, [("user", "hello"), ("assistant", "fine, thanks")])


def test_a_turn_is_found_where_no_part_of_the_chat_is_a_prefix(tokenizers: dict[str, Any]) -> None:
    template = (
        "{{ messages | length }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    _, encoded = tokenize_with(template, tokenizers, [("user", "hello"), ("assistant", "fine")])
    targets = [text for text, target in by_character(tokenizers["chatml"], encoded) if target]
    assert targets == ["fine<|im_end|>"]


def test_a_turn_of_which_only_the_end_is_rewritten(tokenizers: dict[str, Any]) -> None:
    # Earlier turns are written in capitals: only the first turn's beginning is a prefix of the whole.
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content | upper }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    chat = [("user", "A"), ("assistant", "one"), ("user", "B"), ("assistant", "two")]
    _, encoded = tokenize_with(template, tokenizers, chat)
    targets = [text for text, target in by_character(tokenizers["chatml"], encoded) if target]
    assert targets == ["ONE<|im_end|>", "two<|im_end|>"]


def with_template(template: str, tokenizers: dict[str, Any]) -> Any:
    fast = copy.deepcopy(tokenizers["chatml"]._tokenizer)
    fast.chat_template = template
    return fast


def tokenize_with(template: str, tokenizers: dict[str, Any], chat: list[tuple[str, str]]) -> Any:
    messages = [{"role": role, "content": text} for role, text in chat]
    return tokenize(with_template(template, tokenizers), messages)


def test_without_masking_all_but_the_first_token_are_targets(tokenizer: Any) -> None:
    _, encoded = tokenize(
        tokenizer,
        [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"}],
        mask_prompt=False,
    )
    assert not encoded.targets[0]
    assert encoded.targets[1:].all()


@pytest.mark.parametrize("byte_level", [True, False])
@pytest.mark.parametrize("family", ["chatml", "llama3", "mistral"])
def test_a_slow_tokenizer_gives_the_same(
    family: str, byte_level: bool, make_tokenizer: Callable[..., Any]
) -> None:
    class Slow:
        """The same tokenizer, without the offsets that only fast ones have."""

        is_fast = False

        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

    messages = [
        {"role": "user", "content": "What is two and two?"},
        {"role": "assistant", "content": "I am finé"},
        {"role": "user", "content": "how are you"},
        {"role": "assistant", "content": "=SUM(A1:A10)"},
    ]
    fast = make_tokenizer(family, byte_level=byte_level)
    (_, one), (_, other) = tokenize(fast, messages), tokenize(Slow(fast), messages)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_array_equal(one.targets, other.targets)
    answers = "".join(text for text, target in by_character(fast, one) if target)
    assert answers.replace(" ", "") == f"Iamfiné{fast.eos_token}=SUM(A1:A10){fast.eos_token}"


@pytest.mark.parametrize(
    ("family", "messages", "what"),
    [
        ("gemma", [("system", "a"), ("user", "b"), ("assistant", "c")], "System role not supported"),
        ("mistral", [("user", "a"), ("user", "b"), ("assistant", "c")], "roles must alternate"),
        ("chatml", [("user", "a")], "no assistant message"),
        ("plain", [("user", "a"), ("assistant", "c")], "no chat template"),
    ],
)
def test_what_a_template_refuses_is_a_problem_of_the_row(
    family: str, messages: list[tuple[str, str]], what: str, tokenizers: dict[str, Any]
) -> None:
    with pytest.raises(RowProblem, match=what):
        tokenize(tokenizers[family], [{"role": role, "content": text} for role, text in messages])


def test_a_role_that_the_template_leaves_out_is_noticed(tokenizers: dict[str, Any]) -> None:
    template = (
        "{% for m in messages %}{% if m.role in ('user', 'assistant') %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    for role, near in (("narrator", "$"), ("assistent", '; "assistent" looks like "assistant"')):
        with pytest.raises(RowProblem, match=f'leaves out what the role "{role}" says{near}'):
            tokenize_with(template, tokenizers, [(role, "once"), ("user", "hi"), ("assistant", "fine")])


# formats

Write = Callable[..., Path]


def test_text_rows_score_all_but_the_first_token(write: Write, tokenizer: Any) -> None:
    write("train.jsonl", [{"text": "hello there"}, {"text": "the sum<|im_end|>"}])
    dataset = load_dataset(str(write("valid.jsonl", [{"text": "two"}]).parent), tokenizer)
    assert [whole for whole, _ in texts(tokenizer, dataset)] == ["hello there<|im_end|>", "the sum<|im_end|>"]
    for row in dataset.splits["train"]:
        assert row.targets.tolist() == [False] + [True] * (len(row.tokens) - 1)
    assert dataset.train is not None
    assert dataset.train.examples() is None


def test_prompt_and_completion_through_the_template(write: Write, tokenizer: Any) -> None:
    write("train.jsonl", [{"prompt": "two?", "completion": "four"}])
    dataset = load_dataset(str(write("valid.jsonl", []).parent), tokenizer)
    assert texts(tokenizer, dataset) == [
        ("<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\nfour<|im_end|>\n", "four<|im_end|>")
    ]
    assert dataset.train is not None
    ((prompt, answer),) = dataset.train.examples() or []
    assert tokenizer.decode(prompt) == "<|im_start|>user\ntwo?<|im_end|>\n<|im_start|>assistant\n"
    assert answer == "four"


def test_prompt_and_completion_without_a_template(write: Write, tokenizers: dict[str, Any]) -> None:
    write("train.jsonl", [{"prompt": "Q: two?\nA:", "completion": " four"}])
    dataset = load_dataset(str(write("valid.jsonl", []).parent), tokenizers["plain"])
    assert texts(tokenizers["plain"], dataset) == [("Q: two?\nA: four<|im_end|>", " four<|im_end|>")]


def test_other_names_of_the_features(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [{"question": "two?", "formula": "four"}]).parent
    features = Features(prompt="question", completion="formula")
    dataset = load_dataset(str(path), tokenizer, DataOptions(features=features))
    assert texts(tokenizer, dataset)[0][1] == "four<|im_end|>"


def test_tools_reach_the_template(write: Write, tokenizers: dict[str, Any]) -> None:
    import copy

    from mlx_lm.tokenizer_utils import TokenizerWrapper

    fast = copy.deepcopy(tokenizers["chatml"]._tokenizer)
    fast.chat_template = "{% if tools %}{{ tools[0].name }}{% endif %}" + fast.chat_template
    record = {**chat("two?", "four"), "tools": [{"name": "calculator"}]}
    dataset = load_dataset(str(write("train.jsonl", [record]).parent), TokenizerWrapper(fast))
    assert texts(fast, dataset)[0][0].startswith("calculator<|im_start|>user")


def test_parts_of_text_are_joined(write: Write, tokenizer: Any) -> None:
    parts = [{"type": "text", "text": "hello "}, {"type": "text", "text": "there"}]
    record = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "four"}]}
    dataset = load_dataset(str(write("train.jsonl", [record]).parent), tokenizer)
    assert "user\nhello there<|im_end|>" in texts(tokenizer, dataset)[0][0]
