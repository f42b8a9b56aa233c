"""Where states of frozen layers lie: in memory, in a file of this process, or in one that later runs find again.

A file of the last kind has a directory of its own, named by a hash of all that its bytes depend on. Behind each group
of rows that is written comes a mark with the group's checksum. So a group that a crash has torn is noticed, and
computed again. Nothing that goes wrong with such a file stops a run.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.errors import MlxschedError
from mlxsched.platform import caches
from mlxsched.runs.atomic import write_json
from mlxsched.runs.json_file import read_object

FORMAT = 1
_FILE = "states"
_PAGE = 4096
_FILLED = 1 << 32  # beside a checksum of 32 bits: a mark is never 0
Array = NDArray[Any]


@dataclass(frozen=True)
class StoreLayout:
    """``positions`` states of ``width`` numbers, filled in ``groups`` groups."""

    positions: int
    width: int
    dtype: np.dtype[Any]
    groups: int

    @property
    def size(self) -> int:
        """Bytes of the states."""
        return self.positions * self.width * self.dtype.itemsize

    @property
    def marks_size(self) -> int:
        """Bytes of the marks, in whole pages."""
        return -(-8 * self.groups // _PAGE) * _PAGE


@dataclass(eq=False)
class StoredActivations:
    """States ``[positions, width]``, and the marks of the groups that are filled, if later runs are to find them."""

    values: Array
    marks: NDArray[np.uint64] | None = None

    def has(self, group: int, parts: Iterable[Array]) -> bool:
        """Whether ``parts``, which are the group's states, are those that were once written."""
        return self.marks is not None and bool(self.marks[group]) and self.marks[group] == _mark(parts)

    def mark(self, group: int, parts: Iterable[Array]) -> None:
        """Mark the group as filled with ``parts``."""
        if self.marks is not None:
            self.marks[group] = _mark(parts)


def _mark(parts: Iterable[Array]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part.data, checksum)
    return _FILLED | checksum


def private_file(directory: Path, form: StoreLayout) -> StoredActivations | None:
    """A file in ``directory`` that vanishes with the process; None where there is no room."""
    with tempfile.TemporaryFile(dir=directory, prefix=".prefix-states-") as file:
        return StoredActivations(_mapped(file, form, 0)) if _reserved(file, form.size, directory) else None


@dataclass(frozen=True)
class SharedFolder:
    """The folder of the files that later runs find again.

    ``config`` is the model's, ``model`` what people call it, and ``note`` is told what is worth knowing.
    """

    path: Path
    model: str
    config: Mapping[str, Any]
    note: Callable[[str], None]

    def open(self, key: str, form: StoreLayout) -> StoredActivations | None:
        """The states ``key``, new or as earlier runs left them; None where they can't be kept for later runs."""
        entry = self.path.absolute() / key
        kept = _OPEN.get(entry)  # by this very process, whose lock would keep it out
        if kept is not None:
            return kept
        try:
            kept = self._open(entry, form)
        except (OSError, MlxschedError) as error:
            self._not_kept(getattr(error, "strerror", None) or str(error))
        if kept is not None:
            _OPEN[entry] = kept
        return kept

    def _open(self, entry: Path, form: StoreLayout) -> StoredActivations | None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry.mkdir(mode=0o700, exist_ok=True)
        held = caches.hold(entry)
        if held is None:
            self._not_kept("another process is writing the same ones")
            return None
        with contextlib.ExitStack() as lock:
            lock.callback(os.close, held)
            kept = self._of_entry(entry, form)
            if kept is None:
                caches.discard(entry)
                self._not_kept("there is no room for them")
            else:
                weakref.finalize(kept, lock.pop_all().close)
        return kept

    def _of_entry(self, entry: Path, form: StoreLayout) -> StoredActivations | None:
        descriptor = os.open(entry / _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = form.marks_size + form.size
            if not self._is_whole(entry, size, form):
                file.truncate(0)
                if not caches.make_room(self.path, size):
                    return None
            write_json(entry / caches.HEADER, self._header(entry, form))  # the time of its last use, too
            if not _reserved(file, size, entry):
                return None
            marks = np.memmap(file, np.uint64, "r+", shape=(form.groups,))
            self._tell_of(marks, form)
            return StoredActivations(_mapped(file, form, form.marks_size), marks)

    def _is_whole(self, entry: Path, size: int, form: StoreLayout) -> bool:
        """Whether an earlier run left an entry that can be used: the header fits, and the file has its size."""
        header = entry / caches.HEADER
        if not header.exists():
            return False
        with contextlib.suppress(MlxschedError):
            written = {**read_object(header), "model": self.model}
            if written == self._header(entry, form) and (entry / _FILE).stat().st_size == size:
                return True
        self.note(f"frozen-prefix activations: {entry} is damaged and will be rebuilt")
        return False

    def _header(self, entry: Path, form: StoreLayout) -> dict[str, object]:
        facts = {**asdict(form), "dtype": form.dtype.name}
        return {"format": FORMAT, "key": entry.name, "model": self.model, **facts}

    def _tell_of(self, marks: NDArray[np.uint64], form: StoreLayout) -> None:
        share = np.count_nonzero(marks) / len(marks)
        if share:
            self.note(
                f"frozen-prefix activations: {share:.0%} of {form.positions:,} tokens found from an earlier run"
            )

    def _not_kept(self, reason: str) -> None:
        self.note(f"frozen-prefix activations: not stored for later runs, {reason}")


_OPEN: weakref.WeakValueDictionary[Path, StoredActivations] = weakref.WeakValueDictionary()


def _mapped(file: Any, form: StoreLayout, offset: int) -> Array:
    return np.memmap(file, form.dtype, "r+", offset=offset, shape=(form.positions, form.width))


def _reserved(file: Any, size: int, directory: Path) -> bool:
    """Take the blocks now where that can be done: a mapped file on a disk that fills up kills the process."""
    missing = size - 512 * os.fstat(file.fileno()).st_blocks
    if 2 * missing > shutil.disk_usage(directory).free:
        return False
    if not hasattr(os, "posix_fallocate"):  # macOS
        os.ftruncate(file.fileno(), size)
        return True
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError:
        return False
    return True
