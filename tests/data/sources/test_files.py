"""Files in any shape that editors leave them in, and one file split by content."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import chat, texts

from mlxsched.data import DataOptions, load_dataset
from mlxsched.data.sources.files import SplitFileSource
from mlxsched.errors import DataError

Write = Callable[..., Path]


def test_marks_line_ends_and_blank_lines(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    plain = load_dataset(str(write("train.jsonl", [chat("a", "b"), chat("c", "d")]).parent), tokenizer)
    lines = b"\xef\xbb\xbf" + b"\r\n".join(
        json.dumps(chat(*pair)).encode() for pair in (("a", "b"), ("c", "d"))
    )
    (tmp_path / "train.jsonl").write_bytes(lines + b"\r\n\r\n \n")
    assert load_dataset(str(tmp_path), tokenizer).fingerprint == plain.fingerprint


def test_one_file_is_split_by_content(write: Write, tokenizer: Any) -> None:
    rows = [chat(f"row {i}", "four") for i in range(40)]
    path = write("all.jsonl", rows + rows)

    def split(options: DataOptions) -> dict[str, set[str]]:
        dataset = load_dataset(str(path), tokenizer, options)
        return {name: {whole for whole, _ in texts(tokenizer, dataset, name)} for name in dataset.splits}

    first = split(DataOptions())
    assert {name: len(found) for name, found in first.items()} == {"train": 32, "valid": 4, "test": 4}
    assert (
        not first["train"] & first["valid"] | first["train"] & first["test"] | first["valid"] & first["test"]
    )
    write("all.jsonl", [*rows[::-1], *rows])
    assert split(DataOptions()) == first
    assert split(DataOptions(seed=1)) != first


def test_the_rows_of_one_file_are_hashed_once(
    write: Write, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("all.jsonl", [chat(f"row {i}", "four") for i in range(12)])
    hashed: list[Any] = []
    original = SplitFileSource._hash
    monkeypatch.setattr(SplitFileSource, "_hash", lambda *given: hashed.append(1) or original(*given))
    load_dataset(str(path), tokenizer)
    assert len(hashed) == 12


def test_the_split_of_one_file_does_not_change_between_versions(write: Write) -> None:
    path = write("all.jsonl", [chat(f"row {i} é", "four") for i in range(12)])
    source = SplitFileSource(path, DataOptions())
    assert [record.line for record in source.records() if record.split != "train"] == [4, 12]


def test_one_row_is_trained_on_and_not_held_out(write: Write, tokenizer: Any) -> None:
    dataset = load_dataset(str(write("one.jsonl", [chat("a", "b")])), tokenizer)
    assert {split: len(rows) for split, rows in dataset.splits.items()} == {"train": 1}
    assert any("no validation rows" in note for note in dataset.notes)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(write: Write, tokenizer: Any) -> None:
    path = write("train.jsonl", [chat("a", "b")])
    path.chmod(0)
    with pytest.raises(DataError, match="can't be read: Permission denied"):
        load_dataset(str(path.parent), tokenizer)


def test_csv(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "train.csv"
    path.write_bytes('\ufeffprompt,completion\r\n"two,\ntwo?",four\r\n\r\nthree?,six\r\n'.encode())
    dataset = load_dataset(str(tmp_path), tokenizer)
    assert [example.answer for example in (dataset.train and dataset.train.examples()) or []] == [
        "four",
        "six",
    ]
    assert "two,\ntwo?" in texts(tokenizer, dataset)[0][0]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"prompt,completion\na,b\nc\n", ":3: 1 cells, but the header has 2"),
        (b"prompt,prompt\na,b\n", ":2: two columns have the same name in the header"),
        (b'prompt,completion\n"a"x,b\n', ":2: not CSV"),
        (b"prompt,completion\na,\xff\n", "bytes that are not UTF-8"),
        (b"messages\n{\n", ':2: the cell "messages" must hold JSON'),
        (b"a,b\nc,d\n", ':2: needs the key "messages"'),
        (b"prompt,completion\n", "no rows for train"),
    ],
)
def test_csv_mistakes(content: bytes, what: str, tmp_path: Path, tokenizer: Any) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_dataset(str(tmp_path), tokenizer)
    assert what in str(caught.value)
