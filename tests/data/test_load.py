"""Whole data sets: what is loaded, what is refused, and any file at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import chat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlxsched.data import DataOptions, load_dataset
from mlxsched.errors import DataError, MlxschedError

Write = Callable[..., Path]


def test_the_bundled_data(tokenizer: Any) -> None:
    dataset = load_dataset("excel", tokenizer)
    assert dataset.train is not None
    assert dataset.valid is not None
    assert len(dataset.train) >= 1000
    assert dataset.counts["train"].bad == 0
    assert all(example.answer.startswith("=") for example in dataset.valid.examples() or [])


def test_the_fingerprint_is_of_the_content(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b"), chat("c", "d")])
    first = load_dataset(str(tmp_path), tokenizer)
    (tmp_path / "sub").mkdir()
    path.rename(tmp_path / "sub" / "train.jsonl")
    assert load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint == first.fingerprint
    write("sub/train.jsonl", [chat("a", "b"), chat("c", "e")])
    assert load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint != first.fingerprint
    unmasked = load_dataset(str(tmp_path / "sub"), tokenizer, DataOptions(mask_prompt=False))
    assert unmasked.fingerprint != load_dataset(str(tmp_path / "sub"), tokenizer).fingerprint


def test_only_what_is_needed_is_required(write: Write, tokenizer: Any) -> None:
    path = write("test.jsonl", [chat("a", "b")]).parent
    dataset = load_dataset(str(path), tokenizer, DataOptions(need=("test",)))
    assert dataset.train is None
    assert dataset.test is not None


def test_only_bad_rows_are_an_error_even_when_skipped(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", ["{", "["]).parent
    with pytest.raises(DataError, match=r"train\.jsonl:1: not JSON"):
        load_dataset(str(path), tokenizer, DataOptions(skip_bad_rows=True))


def test_no_row_with_targets_is_an_error(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("two? " * 60, "four")] * 3).parent
    with pytest.raises(
        DataError, match="no rows for train: 3 rows .* beyond --max-seq-length 40. Raise --max-seq-length, or"
    ):
        load_dataset(str(path), tokenizer, DataOptions(max_seq_length=40))


def test_no_row_within_the_positions_is_an_error(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("two? " * 60, "four")] * 3).parent
    with pytest.raises(
        DataError, match=r"3 rows with all targets beyond the 9 positions of the model. Use a model with more"
    ):
        load_dataset(str(path), tokenizer, DataOptions(max_positions=9))


_keys = st.sampled_from(
    [
        "text",
        "messages",
        "prompt",
        "completion",
        "role",
        "content",
        "tools",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "weight",
        "function_call",
        "conversations",
        "from",
        "value",
        "instruction",
        "input",
        "output",
        "system",
        "history",
        "user",
        "assistant",
    ]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_keys, inner, max_size=4),
    max_leaves=8,
)
_text = st.text(max_size=8)
_call = st.fixed_dictionaries({}, optional={"name": _text | _json, "arguments": _text | _json})
_message = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "assistant", "system", "tool", "function", "odd"]) | _json,
        "content": _text | _json,
        "weight": st.sampled_from([0, 1, 0.5, 10**400]) | _json,
        "tool_calls": st.lists(_call | st.fixed_dictionaries({"function": _call}), max_size=2) | _json,
        "function_call": _call | _json,
    },
)
_turn = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "tool", "function_call"]) | _json, "value": _text | _json}
)
_record = st.one_of(
    st.dictionaries(_keys, _json, max_size=4),
    st.fixed_dictionaries({"messages": st.lists(_message, max_size=4)}, optional={"tools": _text | _json}),
    st.fixed_dictionaries({"conversations": st.lists(_turn, max_size=4)}, optional={"system": _text | _json}),
    st.fixed_dictionaries(
        {"instruction": _text | _json, "output": _text | _json}, optional={"input": _json, "history": _json}
    ),
    st.fixed_dictionaries({"prompt": _text | st.lists(_message), "completion": _text | st.lists(_message)}),
)
_line = st.one_of(
    _record.map(lambda record: json.dumps(record).encode()),
    _json.map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.sampled_from(
        [json.dumps(chat("two?", "four")).encode(), b'{"text": "hello"}', b"", b"\xef\xbb\xbf", b"\0"]
    ),
)
_file = st.lists(_line, max_size=6).flatmap(
    lambda lines: st.sampled_from([b"\n", b"\r\n"]).map(lambda e: e.join(lines))
)


@settings(
    max_examples=int(os.environ.get("MLXSCHED_FUZZ", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=_file, skip=st.booleans(), mask=st.booleans(), suffix=st.sampled_from([".jsonl", ".csv"]))
def test_any_file_is_rows_or_one_data_error(
    data: bytes, skip: bool, mask: bool, suffix: str, tmp_path: Path, tokenizer: Any
) -> None:
    path = tmp_path / f"fuzz{suffix}"
    path.write_bytes(data)
    options = DataOptions(skip_bad_rows=skip, mask_prompt=mask, max_seq_length=40)
    try:
        dataset = load_dataset(str(path), tokenizer, options)
    except MlxschedError as error:
        assert isinstance(error, DataError)
        assert all(line.isprintable() for line in str(error).splitlines())
        return
    assert dataset.train is not None
    for rows in dataset.splits.values():
        assert (rows.target_counts > 0).all()
        assert rows.lengths.max() <= 40
        assert not any(row.targets[0] for row in rows)
    assert skip or dataset.problems.count == 0
