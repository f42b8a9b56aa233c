"""``metrics.jsonl``: one record a line, only ever whole, and cut back to a checkpoint at a resume.

Every record has ``kind`` (``train``, ``eval`` or ``event``) and ``update``; the other keys are those of the kind
(DESIGN section 8). A number that isn't finite is written as ``null``, since JSON has none.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from mlxsched.errors import DataError
from mlxsched.runs.atomic import StorageError, storage_errors, sync_file, write_all
from mlxsched.runs.json_file import open_plain_file, reading_errors

Record = dict[str, object]

KINDS = ("train", "eval", "event")


class MetricsWriter:
    """Appends records to the file `path`, which is made when it isn't there.

    A record reaches the operating system in one call, so it survives the process; `sync` makes it survive the
    machine. The tail of a record that a crash has torn is cut off when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors(self._path):
            self._descriptor = os.open(self._path, flags, 0o666)
            self._position = _end_of_last_line(self._descriptor)
            os.ftruncate(self._descriptor, self._position)

    @property
    def position(self) -> int:
        """The size of the file in bytes, which is always the end of a record; part of a checkpoint."""
        return self._position

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record, whole or not at all. Raises `StorageError`, after which one may go on writing."""
        line = format_record(record)
        try:
            with storage_errors(self._path):
                write_all(self._descriptor, line)
        except StorageError:
            self._cut_back()
            raise
        self._position += len(line)

    def sync(self) -> None:
        """Flush to the disk, and notice a file that was deleted or replaced under us (`StorageError`)."""
        with storage_errors(self._path):
            sync_file(self._descriptor)
            on_disk, ours = os.lstat(self._path), os.fstat(self._descriptor)
        if (on_disk.st_dev, on_disk.st_ino) != (ours.st_dev, ours.st_ino):
            raise StorageError(
                f"{self._path} was replaced by another file during the run. Put the old one back."
            )

    def truncate_to(self, position: int) -> None:
        """Cut the file at `position`, an earlier value of `position`. Raises `ValueError` for any other number."""
        if not self._is_boundary(position):
            raise ValueError(
                f"{position} is not the end of a record of {self._path} ({self._position} bytes)"
            )
        with storage_errors(self._path):
            os.ftruncate(self._descriptor, position)
            sync_file(self._descriptor)
        self._position = position

    def truncate_after(self, update: int) -> None:
        """Cut off the first record whose ``update`` is beyond `update`, and all that follow it."""
        self.truncate_to(_position_after(self._path, update))

    def rewind(self, position: int, update: int) -> None:
        """`truncate_to(position)`; where the file was edited and that isn't a boundary, `truncate_after(update)`."""
        if self._is_boundary(position):
            self.truncate_to(position)
        else:
            self.truncate_after(update)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_back(self) -> None:
        with contextlib.suppress(OSError):  # readers leave a torn tail out, and the next opening cuts it
            os.ftruncate(self._descriptor, self._position)

    def _is_boundary(self, position: int) -> bool:
        if position == 0:
            return True
        inside = 0 < position <= self._position
        return inside and os.pread(self._descriptor, 1, position - 1) == b"\n"


def format_record(record: Mapping[str, object]) -> bytes:
    """One line of ``metrics.jsonl``.

    >>> format_record({"kind": "train", "update": 3, "loss": float("nan")})
    b'{"kind": "train", "update": 3, "loss": null}\\n'

    Raises `ValueError` for a record without a known ``kind`` or without an ``update`` of at least 0.
    """
    if not _is_record(record):
        raise ValueError(
            f"A record needs a kind of {', '.join(KINDS)} and an update of 0 or more; got {record!r}"
        )
    return json.dumps(_finite(record), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def read_metrics(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``, also of one that is being written; no file means no records.

    A last line that a crash has torn is left out. Raises `DataError` with ``file:line`` for another line that is
    not a record, and `UserError` for a file that cannot be read.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return []
    return [record for record, _ in _records(path)]


def _records(path: Path) -> list[tuple[Record, int]]:
    """Each record with the position at which its line ends."""
    with open(open_plain_file(path), "rb") as file, reading_errors(path):
        lines = file.read().split(b"\n")
    records: list[tuple[Record, int]] = []
    position = 0
    for number, line in enumerate(lines[:-1], start=1):  # the last is empty, or torn
        position += len(line) + 1
        record = _parse(line)
        if record is not None:
            records.append((record, position))
        elif number < len(lines) - 1:
            raise DataError(
                f"{path}:{number} is not a record of mlxsched: {_shortened(line)}. Remove the line."
            )
    return records


def _position_after(path: Path, update: int) -> int:
    position = 0
    for record, end in _records(path):
        if int(str(record["update"])) > update:
            break
        position = end
    return position


def _parse(line: bytes) -> Record | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_record(value) else None


def _is_record(record: Mapping[str, object]) -> bool:
    update = record.get("update")
    whole = isinstance(update, int) and not isinstance(update, bool) and update >= 0
    return whole and record.get("kind") in KINDS


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _shortened(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _end_of_last_line(descriptor: int) -> int:
    """The position behind the last newline, looked for from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
