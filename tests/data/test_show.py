"""The shown text of a row is the text of its tokens, cut where targets begin and end."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data import load_dataset
from mlxsched.data.rows import rows_in_memory
from mlxsched.data.show import Segment, parse_numbers, segments, show
from mlxsched.errors import UsageError


def test_rows_with_their_origin(write: Callable[..., Path], tokenizer: Any) -> None:
    rows = ["", *({"prompt": f"two {i}?", "completion": "four"} for i in range(3))]
    path = write("train.jsonl", rows)
    train = load_dataset(str(path.parent), tokenizer).splits["train"]
    (shown,) = show(train, tokenizer, [2])
    assert shown.to_dict() == {
        "row": 2,
        "file": str(path),
        "line": 3,
        "segments": [
            {"text": "<|im_start|>user\ntwo 1?<|im_end|>\n<|im_start|>assistant\n", "target": False},
            {"text": "four<|im_end|>", "target": True},
            {"text": "\n", "target": False},
        ],
        "tokens": len(train[1].tokens),
        "targets": int(train[1].targets.sum()),
    }
    assert train.place(1) == f"{path}:3"


def test_rows_made_in_memory_have_no_file(tokenizer: Any) -> None:
    rows = rows_in_memory([(np.array([5, 6], np.int32), np.array([False, True]))])
    (shown,) = show(rows, tokenizer, [1])
    assert (shown.file, shown.line, shown.row) == (None, None, 1)


@pytest.mark.parametrize("byte_level", [True, False])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_segments_join_to_the_whole_text(
    byte_level: bool, data: st.DataObject, make_tokenizer: Callable[..., Any]
) -> None:
    tokenizer = make_tokenizer("chatml", byte_level=byte_level)
    text = "<|im_start|>user\nhello there . two? <|im_end|>\n=SUM(A1:A10)<|im_end|>"
    tokens = np.array(tokenizer.encode(text, add_special_tokens=False), np.int32)
    size = len(tokens)
    targets = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    found = segments(tokenizer, tokens, targets)
    assert "".join(part for part, _ in found) == tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    assert all(one.target != other.target for one, other in pairwise(found))


def test_a_character_cut_in_two_is_shown_as_unknown(tokenizer: Any) -> None:
    tokens = np.array(tokenizer.encode("日", add_special_tokens=False), np.int32)
    assert len(tokens) == 3
    first, second = segments(tokenizer, tokens, np.array([False, True, True]))
    assert first == Segment("\ufffd", False)
    assert second.target


@pytest.mark.parametrize(
    ("text", "expected"), [("1", [1]), ("3, 1", [3, 1]), ("2-4,9", [2, 3, 4, 9]), ("9-9", [9]), ("4-2", [])]
)
def test_numbers_and_ranges(text: str, expected: list[int]) -> None:
    assert parse_numbers(text, 9) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "10", "a", "1-", "-1", "1,,2", "1.5", "²", "9" * 5000, "1-999999999999"]
)
def test_numbers_that_are_not_there(text: str) -> None:
    with pytest.raises(UsageError, match="--rows"):
        parse_numbers(text, 9)
