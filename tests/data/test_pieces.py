"""Texts that are encoded piece by piece have the tokens of the whole text."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from mlxsched.data.encode import Encoder
from mlxsched.data.pieces import _BUNDLED, _LLAMA, _PATTERNS, Pieces, _piece
from mlxsched.data.rendering import Rendered
from mlxsched.data.token_bytes import TokenBytes

CORPUS = [
    "hello there, it's 12 o'clock!\n\n  the sum of A1:A10\r\n\tis 345 汉字 é",
    "the the hello  hello user assistant",
]
MARKS_OF_OURS = {"\0", "\1", "\2"}
MARKS = ["<s>", "<|end|>", "<|end|>x"]
FRAGMENTS = [
    "hello", "it's", "'S", "the", "12", "345", "A1:A10", "!", "...", "é", "汉字", "🙂", "e\u0301", "\u0301", "\u1100", "\u1161", "²", "_",
    " ", "  ", "\n", "\r\n", "\t", "\u3000", "\x85", "\x1c", "\u200b", "\0", "\1", "\2", "<|end|>", "<s>", "<|en",
]  # fmt: skip
ByteLevel, Split = pre_tokenizers.ByteLevel, pre_tokenizers.Split


def split(pattern: str, behavior: str = "isolated") -> Any:
    return Split(Regex(pattern), behavior)


def tokenizer(*steps: Any, alphabet: bool = True, normalized: bool = False, **options: Any) -> Tokenizer:
    made = Tokenizer(models.BPE(**options))
    made.pre_tokenizer = pre_tokenizers.Sequence(list(steps)) if len(steps) > 1 else steps[0]
    made.decoder = decoders.ByteLevel()
    known = ByteLevel.alphabet() if alphabet else []
    made.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=340, initial_alphabet=known, show_progress=False)
    )
    return with_marks(made, normalized)


def with_marks(made: Tokenizer, normalized: bool) -> Tokenizer:
    made.add_special_tokens([AddedToken(mark, normalized=normalized) for mark in MARKS])
    ids = [(mark, made.token_to_id(mark)) for mark in MARKS]
    made.post_processor = processors.TemplateProcessing(single="<s> $A <|end|>", special_tokens=ids)
    return made


def qwen() -> Tokenizer:
    from transformers import Qwen2Tokenizer

    model = json.loads(tokenizer(ByteLevel(False)).to_str())["model"]
    theirs = Qwen2Tokenizer(model["vocab"], [tuple(pair) for pair in model["merges"]])
    return with_marks(theirs.backend_tokenizer, False)


def pieces_of(backend: Any) -> Pieces | None:
    return Pieces.of(backend, TokenBytes.of(backend))


def known(pieces: Pieces) -> set[str]:
    return {*map(_piece, pieces._known)} - {"", "\1"}


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: tokenizer(ByteLevel(False)),
    "SmolLM": lambda: tokenizer(pre_tokenizers.Digits(True), ByteLevel(False)),
    "Llama 3": lambda: tokenizer(split(_LLAMA), ByteLevel(False, use_regex=False)),
    "Qwen": qwen,
    "bundled": lambda: tokenizer(split(_BUNDLED), ByteLevel(False, use_regex=False)),
    "normalized marks": lambda: tokenizer(ByteLevel(False), normalized=True),
    "byte fallback": lambda: tokenizer(ByteLevel(False), byte_fallback=True),
    "some bytes": lambda: tokenizer(ByteLevel(False), alphabet=False),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_are_those_of_the_whole_text(name: str) -> None:
    """Only texts that hold a mark of ours, that the tokenizer changes, or that it has no tokens for, are encoded whole."""
    backend = TOKENIZERS[name]()
    pieces = pieces_of(backend)
    assert pieces is not None and pieces.encode(["the"], True)[0] is not None

    @settings(max_examples=80, deadline=None)
    @given(
        st.lists(st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join), min_size=1, max_size=3),
        st.booleans(),
    )
    @example(["hello  there \n the<|end|> hello the <s>"], True)
    def same(texts: list[str], special: bool) -> None:
        for text, found in zip(texts, pieces.encode(texts, special), strict=True):
            plain = backend.encode(text, add_special_tokens=False).ids
            if backend.decode(plain, skip_special_tokens=False) == text and not {*text} & MARKS_OF_OURS:
                assert found is not None
                assert found.tolist() == backend.encode(text, add_special_tokens=special).ids
            else:
                assert found is None

    same()
    assert {"<|end|>", " hello"} < known(pieces)


def test_what_is_put_around_a_text_comes_from_a_text_that_has_tokens() -> None:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = ByteLevel(False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>"], show_progress=False)
    backend.train_from_iterator(["ACGT GATTACA"], trainer)  # no token for "a"
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    pieces = pieces_of(backend)
    assert pieces is not None
    assert pieces.encode(["", "a"], True) == [None, None]
    for text in ("<s>", "ACGT GATTACA", ""):  # <s> is among the tokens of the text here, too
        (found,) = pieces.encode([text], True)
        assert found is not None and found.tolist() == backend.encode(text).ids
    assert pieces.encode(["a"], True) == [None]


def test_a_template_with_the_text_twice_is_left_alone() -> None:
    backend = TOKENIZERS["GPT-2"]()
    mark = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing(single="$A <s> $A", special_tokens=[mark])
    pieces = pieces_of(backend)
    assert pieces is not None and pieces.encode(["hello the"], True) == [None]


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize("limit", ["padding", "truncation", "encode_special_tokens"])
def test_settings_of_another_caller_do_not_matter(limit: str, raw: bool) -> None:
    from transformers import PreTrainedTokenizerFast

    def restrict(backend: Any) -> None:
        if limit == "padding":
            backend.enable_padding(length=30, direction="left")
        elif limit == "truncation":
            backend.enable_truncation(3)
        else:
            backend.encode_special_tokens = True

    backend, texts = TOKENIZERS["GPT-2"](), ["hello the<|end|> hello the  end <s> of it", "other words"]
    expected = [backend.encode(text, add_special_tokens=raw).ids for text in texts]
    restrict(backend)  # as a tokenizer.json may do
    encoder = Encoder(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>"), False)
    for text, ids in zip(texts, expected, strict=True):
        (row,) = encoder.encode([Rendered(text, None, raw=raw)])
        assert row.tokens.tolist() == ids
        assert encoder._pieces is not None
        if limit != "encode_special_tokens":  # transformers resets it to the tokenizer's own setting
            restrict(encoder._inner.backend_tokenizer)


@pytest.mark.parametrize("limit", ["enable_padding", "enable_truncation"])
def test_nothing_is_cut_while_texts_are_padded_or_truncated(limit: str) -> None:
    backend = TOKENIZERS["GPT-2"]()
    pieces = pieces_of(backend)
    assert pieces is not None
    getattr(backend, limit)(**({"length": 8} if limit == "enable_padding" else {"max_length": 8}))
    assert pieces.encode(["hello the"], True) == [None] and pieces.encode(["hello"], False) == [None]
    backend.no_padding()
    backend.no_truncation()
    (found,) = pieces.encode(["hello the"], True)
    assert found is not None and found.tolist() == backend.encode("hello the").ids


def test_special_tokens_that_are_encoded_as_text_are_left_alone() -> None:
    backend = TOKENIZERS["GPT-2"]()
    pieces = pieces_of(backend)
    assert pieces is not None
    backend.encode_special_tokens = True
    assert pieces.encode(["hello<|end|>"], False) == [None]


@pytest.mark.parametrize("raw", [True, False])
def test_the_first_text_is_compared(raw: bool) -> None:
    from transformers import PreTrainedTokenizerFast

    fast = PreTrainedTokenizerFast(tokenizer_object=TOKENIZERS["GPT-2"](), eos_token="<|end|>")
    encoder = Encoder(fast, False)
    assert encoder._pieces is not None
    encoder._pieces._known["\0hello"] = b"\1\0\0\0"
    (row,) = encoder.encode([Rendered("hello the", None, raw=raw)])
    assert row.tokens.tolist() == fast.encode("hello the", add_special_tokens=raw)
    assert encoder._pieces is None


def test_all_patterns_are_tested() -> None:
    assert {_LLAMA, _LLAMA.replace("{1,3}", ""), _BUNDLED} == _PATTERNS


def test_known_pieces_are_not_encoded_again_and_stay_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = TOKENIZERS["GPT-2"]()
    pieces = pieces_of(backend)
    assert pieces is not None
    text = "hello the<|end|> hello the  end"
    (first,) = pieces.encode([text], False)
    assert known(pieces) == {"hello", " the", "<|end|>", " hello", " the  end"}
    monkeypatch.setattr(pieces, "_learn", lambda missing: missing and pytest.fail(str(missing)))
    (again,) = pieces.encode([text], False)
    assert again.tolist() == first.tolist() == backend.encode(text, add_special_tokens=False).ids
    monkeypatch.undo()
    monkeypatch.setattr("mlxsched.data.pieces.MOST_BYTES", 0)
    pieces.encode(["hello"], False)
    assert known(pieces) == {"hello"}


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


def test_added_tokens_of_two_passes_are_left_alone() -> None:
    backend = TOKENIZERS["GPT-2"]()
    backend.add_tokens([AddedToken("x<", normalized=True)])  # the first pass finds <|end|> in "x<|end|>"
    assert pieces_of(backend) is None


def test_normalized_added_tokens_with_nfc_are_left_alone() -> None:
    backend = tokenizer(ByteLevel(False), normalized=True)
    backend.normalizer = normalizers.NFC()
    assert pieces_of(backend) is None


@pytest.mark.parametrize("normalizer", [normalizers.NFKC(), normalizers.Lowercase()])
def test_other_normalizers_are_left_alone(normalizer: Any) -> None:
    backend = TOKENIZERS["GPT-2"]()
    backend.normalizer = normalizer
    assert pieces_of(backend) is None


def test_marks_for_spaces_are_left_alone(make_tokenizer: Callable[..., Any]) -> None:
    assert pieces_of(make_tokenizer("chatml", byte_level=False).backend_tokenizer) is None


def test_dropout_is_left_alone() -> None:
    backend = TOKENIZERS["GPT-2"]()
    backend.model.dropout = 0.1
    assert pieces_of(backend) is None
