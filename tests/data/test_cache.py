"""The cache gives the same rows, and an entry that is not whole is rebuilt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_helpers import chat

from mlxsched.data import DataOptions, load_dataset
from mlxsched.data.cache import FORMAT
from mlxsched.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def cached(write: Write, tmp_path: Path) -> tuple[str, DataOptions]:
    rows = [chat(f"row {i}", "four " * i) for i in range(1, 30)]
    write("data.jsonl", [*rows, chat("é" * 3000, "gone")])
    return str(tmp_path / "data.jsonl"), DataOptions(cache_dir=tmp_path / "cache", max_seq_length=60)


def test_the_cache_gives_the_same_rows(cached: tuple[str, DataOptions], tokenizer: Any) -> None:
    first, second = (load_dataset(cached[0], tokenizer, cached[1]) for _ in range(2))
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.fingerprint == second.fingerprint
    assert first.notes == second.notes
    assert first.counts == second.counts
    for split, rows in first.splits.items():
        other = second.splits[split]
        assert rows.examples() == other.examples()
        for one, two in zip(rows, other, strict=True):
            np.testing.assert_array_equal(one.tokens, two.tokens)
            np.testing.assert_array_equal(one.targets, two.targets)
    memory = load_dataset(cached[0], tokenizer, DataOptions(max_seq_length=60))
    assert memory.fingerprint == first.fingerprint


def test_what_decides_the_rows_decides_the_entry(
    cached: tuple[str, DataOptions], tokenizers: dict[str, Any]
) -> None:
    source, options = cached
    load_dataset(source, tokenizers["chatml"], options)
    assert not load_dataset(source, tokenizers["llama3"], options).from_cache
    assert not load_dataset(source, tokenizers["chatml"], replace(options, max_seq_length=50)).from_cache
    assert not load_dataset(source, tokenizers["chatml"], replace(options, mask_prompt=False)).from_cache
    path = Path(source)
    path.write_text(path.read_text() + json.dumps(chat("new", "row")) + "\n")
    assert not load_dataset(source, tokenizers["chatml"], options).from_cache


def test_the_seed_decides_the_split_of_a_file_only(
    cached: tuple[str, DataOptions], write: Write, tokenizer: Any
) -> None:
    source, options = cached
    load_dataset(source, tokenizer, options)
    assert not load_dataset(source, tokenizer, replace(options, seed=1)).from_cache
    directory = str(write("sub/train.jsonl", [chat("a", "b")]).parent)
    load_dataset(directory, tokenizer, options)
    assert load_dataset(directory, tokenizer, replace(options, seed=1)).from_cache


def test_the_cache_names_the_file_that_was_given(write: Write, tmp_path: Path, tokenizer: Any) -> None:
    options = DataOptions(cache_dir=tmp_path / "cache")
    path = write("one.jsonl", [chat("a", "b")])
    load_dataset(str(path), tokenizer, options)
    moved = path.rename(tmp_path / "other.jsonl")
    dataset = load_dataset(str(moved), tokenizer, options)
    assert dataset.splits["train"].place(0) == f"{moved}:1"


@pytest.mark.parametrize("damage", ["flip", "cut", "header", "gone", "format", "counts"])
def test_a_damaged_entry_is_rebuilt(damage: str, cached: tuple[str, DataOptions], tokenizer: Any) -> None:
    source, options = cached
    assert options.cache_dir is not None
    first = load_dataset(source, tokenizer, options)
    (entry,) = options.cache_dir.iterdir()
    tokens, header = entry / "train.tokens", entry / "header.json"
    data = tokens.read_bytes()
    if damage == "flip":
        tokens.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    elif damage == "cut":
        tokens.write_bytes(data[:-3])
    elif damage == "header":
        header.write_text('{"format"')
    elif damage == "counts":
        header.write_text(header.read_text().replace('"dropped"', '"lost"'))
    elif damage == "format":
        header.write_text(header.read_text().replace(f'"format": {FORMAT}', '"format": 0'))
    else:
        tokens.unlink()
    again = load_dataset(source, tokenizer, options)
    assert not again.from_cache
    assert again.fingerprint == first.fingerprint
    assert load_dataset(source, tokenizer, options).from_cache


def test_a_cache_that_cannot_be_written_is_not_needed(
    cached: tuple[str, DataOptions], tmp_path: Path, tokenizer: Any
) -> None:
    (tmp_path / "file").touch()
    dataset = load_dataset(cached[0], tokenizer, replace(cached[1], cache_dir=tmp_path / "file"))
    assert dataset.train is not None
    assert "not kept for the next run" in dataset.notes[-1]


def test_a_refused_data_set_leaves_nothing_in_the_cache(write: Write, tmp_path: Path, tokenizer: Any) -> None:
    options = DataOptions(cache_dir=tmp_path / "cache")
    with pytest.raises(DataError):
        load_dataset(str(write("rows.jsonl", ["{"])), tokenizer, options)
    assert list((tmp_path / "cache").iterdir()) == []
