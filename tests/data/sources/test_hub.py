"""Rows through the ``datasets`` library; its own JSON reader needs no network."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chat_templates as templates
import pytest

from mlxsched.data import DataOptions, load_dataset
from mlxsched.errors import DataError

HAS_DATASETS = importlib.util.find_spec("datasets") is not None
needs_datasets = pytest.mark.skipif(not HAS_DATASETS, reason="datasets is not installed")


@pytest.mark.skipif(HAS_DATASETS, reason="datasets is installed")
def test_without_the_library_the_error_says_how_to_install_it(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="neither bundled.*nor a file.*pip install"):
        load_dataset("someone/something", tokenizer)


@pytest.mark.parametrize(
    ("block", "what"),
    [
        ({}, "needs a path"),
        ({"path": 3}, "path must be a str; got 3"),
        ({"path": "a/b", "splits": "train"}, "has no key 'splits'"),
        ([], "hf_dataset is empty"),
    ],
)
def test_a_bad_block_is_refused(block: Any, what: str, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=what):
        load_dataset(block, tokenizer)


def block(path: Path, **more: Any) -> dict[str, Any]:
    cache = str(path.parent / "hub")
    return {"path": "json", "config": {"data_files": str(path), "cache_dir": cache}, **more}


@needs_datasets
def test_blocks_with_their_own_features(write: Callable[..., Path], tmp_path: Path, tokenizer: Any) -> None:
    one = write("one.jsonl", [{"question": f"two {i}?", "sql": f"four {i}"} for i in range(10)])
    two = write("two.jsonl", [{"prompt": "hello", "completion": "there"}] * 3)
    source = [
        block(one, prompt_feature="question", completion_feature="sql"),
        block(two, train_split="train", valid_split="train[:1]"),
    ]
    options = DataOptions(cache_dir=tmp_path / "cache")
    for cached in (False, True):
        dataset = load_dataset(source, tokenizer, options)
        assert dataset.from_cache is cached
        assert dataset.train is not None
        assert dataset.valid is not None
        answers = [example.answer for example in dataset.train.examples() or []]
        assert answers == [f"four {i}" for i in range(8)] + ["there"] * 3
        assert [example.answer for example in dataset.valid.examples() or []] == ["four 9", "there"]


@needs_datasets
def test_nulls_of_a_table_are_missing_keys(
    write: Callable[..., Path], with_template: Callable[[str], Any]
) -> None:
    def row(name: str, arguments: dict[str, str]) -> dict[str, Any]:
        call = {"function": {"name": name, "arguments": arguments}}
        asked = {"role": "user", "content": "two?", "weight": 1}
        return {"messages": [asked, {"role": "assistant", "content": None, "tool_calls": [call]}]}

    path = write("chat.jsonl", [row("sum", {"a": "2"}), row("lookup", {"city": "Paris"})] * 5)
    tokenizer = with_template(templates.CALLS_AS_JSON)
    train = load_dataset(block(path), tokenizer).splits["train"]
    found = [tokenizer.decode(row.tokens[row.targets].tolist()) for row in train]
    assert found[:2] == ['sum {"a": "2"}<|im_end|>', 'lookup {"city": "Paris"}<|im_end|>']


@needs_datasets
def test_bad_rows_and_missing_sets_are_named(write: Callable[..., Path], tokenizer: Any) -> None:
    path = write("bad.jsonl", [{"other": "two"}] * 10)
    with pytest.raises(DataError, match=r"json \[train\]:1: needs the key"):
        load_dataset(block(path), tokenizer)
    with pytest.raises(DataError, match="could not be loaded from Hugging Face"):
        load_dataset(block(path, train_split="nothing"), tokenizer)
