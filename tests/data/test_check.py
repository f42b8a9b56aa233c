"""The report on a data set counts what is there and finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data import DataOptions, load_dataset
from mlxsched.data.check import DataReport, check, histogram


def report_on(path: Path, tokenizer: Any, limit: int = 2048) -> DataReport:
    options = DataOptions(skip_bad_rows=True, need=(), max_seq_length=limit)
    return check(load_dataset(str(path), tokenizer, options), options)


def codes(report: DataReport) -> set[tuple[str, str, str]]:
    return {(finding.code, finding.severity, finding.where) for finding in report.findings}


def test_a_clean_data_set_is_healthy(write: Callable[..., Path], tokenizer: Any) -> None:
    for split in ("train", "valid", "test"):
        path = write(f"{split}.jsonl", [{"text": f"{split} row {i}"} for i in range(5)])
    report = report_on(path.parent, tokenizer)
    assert report.healthy
    assert report.findings == []
    assert {split: r.rows for split, r in report.splits.items()} == {"train": 5, "valid": 5, "test": 5}
    train = report.splits["train"]
    assert train.targets == train.tokens - 5
    assert sum(count for *_, count in train.histogram) == 5


def test_each_kind_of_trouble_is_found(write: Callable[..., Path], tokenizer: Any) -> None:
    long = {"prompt": "a", "completion": "four " * 50}
    hidden = {"prompt": "two? " * 50, "completion": "a"}
    rows = [{"prompt": f"{i}", "completion": "a"} for i in range(6)]
    write("train.jsonl", [*rows, rows[0], long, hidden, "{"])
    path = write("test.jsonl", [rows[1], {"prompt": "new", "completion": "a"}])
    report = report_on(path.parent, tokenizer, limit=60)
    assert not report.healthy
    assert codes(report) == {
        ("no_rows", "note", "valid"),
        ("bad_rows", "error", "train"),
        ("dropped", "error", "train"),
        ("truncated", "error", "train"),
        ("duplicates", "note", "train"),
        ("shared_rows", "error", "test"),
    }
    assert "train.jsonl:10: not JSON" in report.problems[0]
    shared = next(finding for finding in report.findings if finding.code == "shared_rows")
    assert shared.evidence == f"1 of 2 rows are in train too: {path}:1 is {path.parent}/train.jsonl:2"


def test_a_directory_without_training_rows_is_a_problem(write: Callable[..., Path], tokenizer: Any) -> None:
    path = write("test.jsonl", [{"text": "hello there"}])
    assert ("no_rows", "error", "train") in codes(report_on(path.parent, tokenizer))
    write("test.jsonl", ["{"])
    report = report_on(path.parent, tokenizer)
    assert report.splits["test"].rows == 0
    assert report.splits["test"].counts.bad == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1), st.integers(1, 12))
def test_the_histogram_holds_every_row_once(lengths: list[int], bins: int) -> None:
    classes = histogram(np.asarray(lengths), bins)
    assert len(classes) <= bins
    for low, high, count in classes:
        assert count == sum(low <= length < high for length in lengths)
    assert sum(count for *_, count in classes) == len(lengths)
