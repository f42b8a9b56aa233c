"""Tokenized rows on disk: made whole in a directory of their own, then renamed; mapped into memory when used.

An entry is named by a hash of everything that decides its content, and holds a hash of that content. An entry
that is damaged, of another version, or not ours is ignored and made anew. Nothing in it is ever executed: it
is raw arrays and one JSON file.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mlxsched.data.rows import COLUMNS, Rows

FORMAT = 1
KEPT_ENTRIES = 16
_ASIDE = ".new-"
_ABANDONED_SECONDS = 86400
_HEADER = "header.json"
Made = TypeVar("Made")


@contextlib.contextmanager
def new_entry(directory: Path) -> Iterator[Path]:
    """A temporary directory to write an entry into; gone afterwards unless `keep` renamed it."""
    directory.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=directory))
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def keep(aside: Path, directory: Path, key: str, header: Mapping[str, Any]) -> None:
    """Make the finished entry in ``aside`` the one called ``key``, and drop the oldest beyond 16."""
    (aside / _HEADER).write_text(json.dumps({"format": FORMAT, "key": key, **header}), encoding="utf-8")
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    final = directory / key
    if final.exists():  # damaged, or made by another process just now: as good as ours at best
        shutil.rmtree(final, ignore_errors=True)
    aside.rename(final)
    with contextlib.suppress(OSError):  # another process may be tidying up too
        _tidy(directory)


def _tidy(directory: Path) -> None:
    """Remove all but the entries used last, and what killed processes left aside."""
    entries = [entry for entry in directory.iterdir() if (entry / _HEADER).is_file()]
    entries = [entry for entry in entries if not entry.name.startswith(_ASIDE)]
    entries.sort(key=lambda entry: (entry / _HEADER).stat().st_mtime, reverse=True)
    left = [
        old for old in directory.glob(f"{_ASIDE}*") if time.time() - old.stat().st_mtime > _ABANDONED_SECONDS
    ]
    for entry in entries[KEPT_ENTRIES:] + left:
        shutil.rmtree(entry, ignore_errors=True)


def find(directory: Path, key: str, use: Callable[[Any, Mapping[str, Rows]], Made]) -> Made | None:
    """What ``use`` makes of header and rows of the entry ``key``; None when there is no entry that is whole.

    ``use`` raises ValueError for rows that are not those the header tells of.
    """
    entry = directory / key
    try:
        header = json.loads((entry / _HEADER).read_text(encoding="utf-8"))
        if header["format"] != FORMAT or header["key"] != key:
            return None
        made = use(header, {split: load_rows(entry, split) for split in header["splits"]})
        os.utime(entry / _HEADER)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return made


def load_rows(entry: Path, split: str) -> Rows:
    """The rows of one split, mapped into memory."""
    if split != Path(split).name:
        raise ValueError(split)
    return Rows({name: _map(entry / f"{split}.{name}", dtype) for name, dtype in COLUMNS.items()})


def _map(path: Path, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    if path.stat().st_size == 0:  # nothing can't be mapped
        return np.zeros(0, dtype)
    return np.memmap(path, dtype, mode="r").view(np.ndarray)
