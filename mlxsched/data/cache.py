"""Tokenized rows on disk: written in a temporary directory, then renamed, and mapped into memory when used.

The name of an entry is a hash of everything that decides its content, and its header holds a hash of that content.
An entry that is damaged, of another version, or not ours is ignored and rebuilt. Nothing in it is ever executed: it
consists of raw arrays and one JSON file.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlxsched.data.rows import COLUMNS, Rows

# 6: which rows belong to a conversation; 5: conversations stay in one split; 4: how many rows begin others; 3: rules for
# assistant turns, tool calls and begin tokens; 2: where each row came from
FORMAT = 6
KEPT_ENTRIES = 16
_TEMPORARY = ".new-"
_ABANDONED_SECONDS = 86400
_HEADER = "header.json"
_KEY = re.compile("[0-9a-f]{32}")
_Result = TypeVar("_Result")


@contextlib.contextmanager
def new_entry(directory: Path) -> Iterator[Path]:
    """A temporary directory to write an entry into. It is removed at the end unless `keep` renamed it."""
    directory.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=directory))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def keep(temporary: Path, directory: Path, key: str, header: Mapping[str, Any]) -> None:
    """Rename the finished entry to ``key``, and remove the least recently used ones beyond 16."""
    (temporary / _HEADER).write_text(json.dumps({"format": FORMAT, "key": key, **header}), encoding="utf-8")
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    final = directory / key
    if final.exists():  # damaged, or made by another process a moment ago, and then the same as ours
        shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    with contextlib.suppress(OSError):  # another process may be doing the same
        _remove_old(directory)


def _remove_old(directory: Path) -> None:
    """Remove all but the most recently used entries, and what killed processes have left."""
    # Only names that `keep` gives: somebody may have put a folder of their own here.
    entries = [entry for entry in directory.iterdir() if _KEY.fullmatch(entry.name)]
    entries = [entry for entry in entries if (entry / _HEADER).is_file()]
    entries.sort(key=lambda entry: (entry / _HEADER).stat().st_mtime, reverse=True)
    abandoned = [
        old
        for old in directory.glob(f"{_TEMPORARY}*")
        if time.time() - old.stat().st_mtime > _ABANDONED_SECONDS
    ]
    for entry in entries[KEPT_ENTRIES:] + abandoned:
        shutil.rmtree(entry, ignore_errors=True)


def find(
    directory: Path, key: str, use: Callable[[Mapping[str, Any], Mapping[str, Rows]], _Result]
) -> _Result | None:
    """What ``use`` makes of the header and the rows of entry ``key``; None if there is no intact entry.

    ``use`` raises ValueError if the rows are not the ones that the header describes.
    """
    entry = directory / key
    try:
        header = json.loads((entry / _HEADER).read_text(encoding="utf-8"))
        if header["format"] != FORMAT or header["key"] != key:
            return None
        splits = {split: load_rows(entry, split, names) for split, names in header["files"].items()}
        result = use(header, splits)
        os.utime(entry / _HEADER)  # the time of last use
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return result


def load_rows(entry: Path, split: str, file_names: list[str]) -> Rows:
    """The rows of one split, mapped into memory."""
    if split != Path(split).name:  # a header must not lead out of its entry
        raise ValueError(split)
    columns = {name: _map(entry / f"{split}.{name}", dtype) for name, dtype in COLUMNS.items()}
    return Rows(columns, file_names)


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if path.stat().st_size == 0:  # mmap refuses empty files
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r").view(np.ndarray)
