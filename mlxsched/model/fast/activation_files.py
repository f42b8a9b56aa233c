"""Where frozen-prefix activations are stored: in memory, in a file of this process, or in one that later runs share.

A shared file has a directory of its own, named by a hash of all that its bytes depend on (`activation_key`). After a
group of rows is written, its checksum is, for each of the rows: a group torn by a crash has no valid checksum, and is recomputed. Nothing
that goes wrong with such a file stops a run.

Layout of a shared file: a mark of 8 bytes for each of ``rows`` rows, padded to whole pages, then ``[positions, width]`` numbers.
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

from mlxsched.data.rows import Indices
from mlxsched.errors import MlxschedError
from mlxsched.platform import caches
from mlxsched.runs.atomic import write_json
from mlxsched.runs.json_file import read_object

FORMAT = 2  # 1 had a mark for each group
_FILE = "states"
_PAGE = 4096
_FILLED = 1 << 32  # set next to the 32 bits of a checksum, so that a mark of 0 always means "not written"
Array = NDArray[Any]


@dataclass(frozen=True)
class StoreLayout:
    """``positions`` activations of ``width`` numbers each, of ``rows`` rows."""

    positions: int
    width: int
    dtype: np.dtype[Any]
    rows: int

    @property
    def size(self) -> int:
        """Bytes of the activations."""
        return self.positions * self.width * self.dtype.itemsize

    @property
    def marks_size(self) -> int:
        """Bytes of the marks, in whole pages."""
        return -(-8 * self.rows // _PAGE) * _PAGE


@dataclass(eq=False)
class StoredActivations:
    """Activations ``[positions, width]``, and in a shared file the marks ``[rows]`` of those that are written."""

    values: Array
    marks: NDArray[np.uint64] | None = None

    def has(self, group: Indices, parts: Iterable[Array]) -> bool:
        """Whether ``parts``, the activations of the rows ``group``, are there and intact."""
        return self.marks is not None and bool(self.marks[group[0]]) and self.marks[group[0]] == _mark(parts)

    def mark(self, group: Indices, parts: Iterable[Array]) -> None:
        """Mark the rows ``group`` as written with ``parts``."""
        if self.marks is not None:
            self.marks[group] = _mark(parts)


def _mark(parts: Iterable[Array]) -> int:
    checksum = 0
    for part in parts:
        checksum = zlib.crc32(part.data, checksum)
    return _FILLED | checksum


def private_file(directory: Path, layout: StoreLayout) -> StoredActivations | None:
    """A file in ``directory`` that the system removes with the process; None where there is no room."""
    with tempfile.TemporaryFile(dir=directory, prefix=".prefix-states-") as file:
        if not _reserved(file, layout.size, directory):
            return None
        return StoredActivations(_mapped(file, layout, 0))


@dataclass(frozen=True)
class SharedFolder:
    """The folder of the shared files.

    ``config`` is the model's, ``model`` its name for people, and ``note`` receives what a user should know.
    """

    path: Path
    model: str
    config: Mapping[str, Any]
    note: Callable[[str], None]

    def open(self, key: str, layout: StoreLayout) -> StoredActivations | None:
        """The activations named ``key``, new or as earlier runs left them; None where they can't be shared."""
        entry = self.path.absolute() / key
        stored = _OPEN.get(entry)  # by this process, whose own lock would keep it out
        if stored is not None:
            return stored
        try:
            stored = self._open(entry, layout)
        except (OSError, MlxschedError) as error:
            self._not_stored(getattr(error, "strerror", None) or str(error))
        if stored is not None:
            _OPEN[entry] = stored
        return stored

    def _open(self, entry: Path, layout: StoreLayout) -> StoredActivations | None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry.mkdir(mode=0o700, exist_ok=True)
        held = caches.hold(entry)
        if held is None:
            self._not_stored("another process is writing the same ones")
            return None
        with contextlib.ExitStack() as lock:
            lock.callback(os.close, held)
            stored = self._of_entry(entry, layout)
            if stored is None:
                caches.discard(entry)
                self._not_stored("there is no room for them")
            else:
                weakref.finalize(stored, lock.pop_all().close)
        return stored

    def _of_entry(self, entry: Path, layout: StoreLayout) -> StoredActivations | None:
        descriptor = os.open(entry / _FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            size = layout.marks_size + layout.size
            if not self._is_whole(entry, size, layout):
                file.truncate(0)
                if not caches.make_room(self.path, size):
                    return None
            write_json(entry / caches.HEADER, self._header(entry, layout))  # dated: the time of the last use
            if not _reserved(file, size, entry):
                return None
            marks = np.memmap(file, np.uint64, "r+", shape=(layout.rows,))
            self._report_found(marks, layout)
            return StoredActivations(_mapped(file, layout, layout.marks_size), marks)

    def _is_whole(self, entry: Path, size: int, layout: StoreLayout) -> bool:
        """Whether an earlier run left a usable entry: its header matches, and so does the file's size."""
        header = entry / caches.HEADER
        if not header.exists():
            return False
        with contextlib.suppress(MlxschedError):
            written = {**read_object(header), "model": self.model}
            if written == self._header(entry, layout) and (entry / _FILE).stat().st_size == size:
                return True
        self.note(f"frozen-prefix activations: {entry} is damaged and will be rebuilt")
        return False

    def _header(self, entry: Path, layout: StoreLayout) -> dict[str, object]:
        facts = {**asdict(layout), "dtype": layout.dtype.name}
        return {"format": FORMAT, "key": entry.name, "model": self.model, **facts}

    def _report_found(self, marks: NDArray[np.uint64], layout: StoreLayout) -> None:
        share = np.count_nonzero(marks) / len(marks)
        if share:
            self.note(
                f"frozen-prefix activations: {share:.0%} of {layout.positions:,} tokens found from an earlier run"
            )

    def _not_stored(self, reason: str) -> None:
        self.note(f"frozen-prefix activations: not stored for later runs, {reason}")


_OPEN: weakref.WeakValueDictionary[Path, StoredActivations] = weakref.WeakValueDictionary()


def _mapped(file: Any, layout: StoreLayout, offset: int) -> Array:
    return np.memmap(file, layout.dtype, "r+", offset=offset, shape=(layout.positions, layout.width))


def _reserved(file: Any, size: int, directory: Path) -> bool:
    """Reserve the disk blocks now where that is possible: writing to a mapped file on a full disk kills the process."""
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
