"""What a user names is found, or the nearest thing is named."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_helpers import chat

from mlxsched.data import load_dataset
from mlxsched.errors import DataError

Write = Callable[..., Path]
HAS_DATASETS = importlib.util.find_spec("datasets") is not None


def test_what_is_not_there(tmp_path: Path, write: Write, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="The directory is empty"):
        load_dataset(str(tmp_path), tokenizer)
    write("rows.jsonl", [chat("a", "b")])
    with pytest.raises(DataError, match=r"has no train\.jsonl.*holds rows\.jsonl.*--data .*rows\.jsonl"):
        load_dataset(str(tmp_path), tokenizer)
    with pytest.raises(DataError, match=r"no file or directory .*Did you mean .*rows\.jsonl"):
        load_dataset(str(tmp_path / "row.jsonl"), tokenizer)
    (tmp_path / "rows.txt").touch()
    with pytest.raises(DataError, match=r"neither \.jsonl nor \.csv"):
        load_dataset(str(tmp_path / "rows.txt"), tokenizer)
    (tmp_path / "train.jsonl").touch()
    with pytest.raises(DataError, match="no rows for train: the file is empty"):
        load_dataset(str(tmp_path), tokenizer)


@pytest.mark.skipif(HAS_DATASETS, reason="datasets is installed")
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("exel", " Did you mean 'excel'? Bundled: excel."),
        ("my-dta", " Did you mean 'my-data'? Bundled: excel."),
        ("qqqq", " Bundled: excel."),
        (
            "my-data/trian",
            " Did you mean 'my-data/train.jsonl'? If it is a data set on Hugging Face: pip install",
        ),
        ("./my-data/train", " Did you mean 'my-data/train.jsonl'?"),
        ("row.jsonl", " Did you mean 'rows.jsonl'? Bundled: excel."),
        ("chat.jsonl", " Bundled: excel."),  # rows.jsonl has nothing but the suffix in common with it
    ],
)
def test_a_missing_path_is_named_with_the_nearest_one(
    name: str, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-data").mkdir()
    (tmp_path / "my-data" / "train.jsonl").touch()
    (tmp_path / "rows.jsonl").touch()
    with pytest.raises(DataError) as error:
        load_dataset(name, tokenizer)
    assert str(error.value).startswith(f"There is no file or directory {name!r}.{advice}")
    assert ("pip" in str(error.value)) == ("pip" in advice)
