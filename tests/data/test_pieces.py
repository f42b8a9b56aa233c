"""Texts that are encoded piece by piece have the tokens of the whole text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from mlxsched.data.pieces import _BUNDLED, _LLAMA, _PATTERNS, Pieces
from mlxsched.data.token_bytes import TokenBytes

CORPUS = [
    "hello there, it's 12 o'clock!\n\n  the sum of A1:A10\r\n\tis 345 汉字 é",
    "the the hello  hello user assistant",
]
MARKS = ["<s>", "<|end|>", "<|end|>x"]
FRAGMENTS = [
    "hello", "it's", "'S", "the", "12", "345", "A1:A10", "!", "...", "é", "汉字", "🙂", "e\u0301", "²", "_",
    " ", "  ", "\n", "\r\n", "\t", "\u3000", "\x85", "\x1c", "\u200b", "\0", "<|end|>", "<s>", "<|en",
]  # fmt: skip
ByteLevel, Split = pre_tokenizers.ByteLevel, pre_tokenizers.Split


def split(pattern: str, behavior: str = "isolated") -> Any:
    return Split(Regex(pattern), behavior)


def tokenizer(*steps: Any) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    made.decoder = decoders.ByteLevel()
    alphabet = ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    )
    made.add_special_tokens(MARKS)
    ids = [(mark, made.token_to_id(mark)) for mark in MARKS]
    made.post_processor = processors.TemplateProcessing(single="<s> $A <|end|>", special_tokens=ids)
    return made


def pieces_of(backend: Any) -> Pieces | None:
    return Pieces.of(backend, TokenBytes.of(backend))


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: tokenizer(ByteLevel(False)),
    "SmolLM": lambda: tokenizer(pre_tokenizers.Digits(True), ByteLevel(False)),
    "Llama 3": lambda: tokenizer(split(_LLAMA), ByteLevel(False, use_regex=False)),
    "Qwen": lambda: tokenizer(split(_LLAMA.replace("{1,3}", "")), ByteLevel(False, use_regex=False)),
    "bundled": lambda: tokenizer(split(_BUNDLED), ByteLevel(False, use_regex=False)),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_those_of_the_whole_text(name: str) -> None:
    backend = TOKENIZERS[name]()
    pieces = pieces_of(backend)
    assert pieces is not None

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), min_size=1, max_size=3),
        st.booleans(),
    )
    @example(["hello  there \n the<|end|> hello <s>"], True)
    def same(texts: list[str], special: bool) -> None:
        for text, found in zip(texts, pieces.encode(texts, special), strict=True):
            if found is not None:
                assert found.tolist() == backend.encode(text, add_special_tokens=special).ids

    same()


def test_all_patterns_are_tested() -> None:
    assert {_LLAMA, _LLAMA.replace("{1,3}", ""), _BUNDLED} == _PATTERNS


def test_known_pieces_are_not_encoded_again_and_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TOKENIZERS["GPT-2"]()
    pieces = pieces_of(backend)
    assert pieces is not None
    text = "hello the<|end|> hello the  end"
    (first,) = pieces.encode([text], False)
    assert set(pieces._known) == {"hello", " the", "<|end|>", " hello", " the  end"}
    monkeypatch.setattr(pieces, "_backend", None)  # nothing is left to encode
    monkeypatch.setattr(pieces, "_learn", lambda missing: missing and pytest.fail(str(missing)))
    (again,) = pieces.encode([text], False)
    assert again.tolist() == first.tolist() == backend.encode(text, add_special_tokens=False).ids
    monkeypatch.undo()
    monkeypatch.setattr("mlxsched.data.pieces.MOST_BYTES", 0)
    pieces.encode(["hello"], False)
    assert set(pieces._known) == {"hello"}


@pytest.mark.parametrize(
    "steps",
    [
        (split(r"\S+ \S+"), ByteLevel(False, use_regex=False)),
        (split(_LLAMA, "merged_with_next"), ByteLevel(False, use_regex=False)),
        (ByteLevel(False, use_regex=False),),
        (pre_tokenizers.Digits(True), ByteLevel(False, use_regex=False)),
        (ByteLevel(False, use_regex=False), split(_LLAMA)),
        (ByteLevel(True),),
    ],
)
def test_other_splits_are_left_alone(steps: tuple[Any, ...]) -> None:
    assert pieces_of(tokenizer(*steps)) is None


@pytest.mark.parametrize(
    "mark",
    [
        AddedToken("<cut>", rstrip=True, normalized=False),
        AddedToken("<cut>", lstrip=True, normalized=False),
        AddedToken("cut", single_word=True, normalized=False),
        AddedToken("to cut", normalized=False),
    ],
)
def test_added_tokens_that_see_spaces_are_left_alone(mark: AddedToken) -> None:
    backend = TOKENIZERS["GPT-2"]()
    backend.add_special_tokens([mark])
    assert pieces_of(backend) is None


def test_dropout_is_left_alone() -> None:
    backend = TOKENIZERS["GPT-2"]()
    backend.model.dropout = 0.1
    assert pieces_of(backend) is None
