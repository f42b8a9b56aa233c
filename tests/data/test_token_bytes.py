"""Spans of characters become the tokens that the tokenizer's own offsets give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers, processors

from mlxsched.data.encode import Encoder
from mlxsched.data.rendering import Rendered
from mlxsched.data.token_bytes import TokenBytes

texts = st.lists(
    st.sampled_from(
        [
            "hello",
            " there",
            "\n",
            " ",
            "  ",
            "é",
            "e\u0301",
            "🙂",
            "汉字",
            "<|im_start|>",
            "<|im_end|>",
            "=SUM(A1:A10)",
            "\t",
        ]
    ),
    min_size=1,
    max_size=12,
).map("".join)


@pytest.mark.parametrize("normalizer", [None, normalizers.NFC()])
@pytest.mark.parametrize("mask_prompt", [True, False])
def test_spans_are_those_of_the_offsets(
    mask_prompt: bool, normalizer: Any, make_tokenizer: Callable[..., Any]
) -> None:
    fast = make_tokenizer("chatml")
    fast.backend_tokenizer.normalizer = normalizer
    ours, theirs = (Encoder(fast, mask_prompt) for _ in range(2))
    assert ours._bytes is not None and ours._pieces is not None
    theirs._bytes = None

    @settings(max_examples=60, deadline=None)
    @given(text=texts, data=st.data())
    def same(text: str, data: st.DataObject) -> None:
        places = st.integers(0, len(text))
        cut = sorted(data.draw(st.lists(places, min_size=4, max_size=4)))
        row = Rendered(text, ((cut[0], cut[1]), (cut[2], cut[3])), unscored=((cut[1], cut[2]),))
        one, other = ours.encode([row])[0], theirs.encode([row])[0]
        assert one.tokens.tolist() == other.tokens.tolist()
        assert one.targets.tolist() == other.targets.tolist()
        assert one.prompt_length == other.prompt_length

    same()


def test_texts_and_pairs_without_a_template(tokenizers: dict[str, Any]) -> None:
    ours, theirs = (Encoder(tokenizers["plain"], True) for _ in range(2))
    theirs._bytes = None
    for spans in (None, ((5, 9),)):
        rows = [
            Rendered(text, spans, raw=True)
            for text in ("<|endoftext|>hello there", "hello é there<|im_end|>")
        ]
        for one, other in zip(ours.encode(rows), theirs.encode(rows), strict=True):
            assert one.tokens.tolist() == other.tokens.tolist()
            assert one.targets.tolist() == other.targets.tolist()


def test_a_token_that_takes_more_than_its_text_falls_back(make_tokenizer: Callable[..., Any]) -> None:
    fast = make_tokenizer("chatml")
    fast.add_tokens([AddedToken("<cut>", rstrip=True, normalized=False)])
    ours, theirs = Encoder(fast, True), Encoder(fast, True)
    theirs._bytes = None
    row = Rendered("hello<cut>   there you", ((14, 19),))
    assert ours.encode([row])[0].targets.tolist() == theirs.encode([row])[0].targets.tolist()


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("normalizer", normalizers.NFD()),
        ("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)),
        ("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(False)])),
        ("post_processor", processors.ByteLevel(trim_offsets=True)),
    ],
)  # fmt: skip
def test_tokenizers_that_move_offsets_are_left_alone(
    part: str, value: Any, make_tokenizer: Callable[..., Any]
) -> None:
    backend = make_tokenizer("chatml").backend_tokenizer
    setattr(backend, part, value)
    assert TokenBytes.of(backend) is None
