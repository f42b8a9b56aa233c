"""``metrics.jsonl``: one record a line, always complete, and cut back to a checkpoint by a resume.

Every record has ``kind`` and ``update``; the other keys are the fields of that kind's event (`mlxsched.runs.events`).
A number that is not finite is written as ``null``, since JSON has no NaN.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mlxsched.errors import DataError
from mlxsched.runs.atomic import StorageError, storage_errors, sync_file, write_all
from mlxsched.runs.events import KINDS, Event, Record, update_of
from mlxsched.runs.json_file import LARGEST, finite, open_plain_file, reading_errors

__all__ = ["START", "MetricsWriter", "Position", "Record", "format_record", "read_metrics", "read_records"]

LONGEST_LINE = LARGEST
"""A file without line ends (a sparse one of 6 GB, say) must not end up in memory as one line."""
_TAIL = 64
_decode = json.JSONDecoder().decode  # `json.loads` would detect the encoding of each line first


@dataclass(frozen=True)
class Position:
    """How far a reader has got: an offset in bytes, and the bytes before it, which show whether the file changed.

    A resume cuts the file back and writes it again. The offset alone would not show that once the file has grown past
    it; the end of the last record, with its times in it, does.
    """

    offset: int = 0
    tail: bytes = b""


START = Position()


class MetricsWriter:
    """Appends records to the file `path`, which is created when it is missing.

    A record reaches the operating system in one call, so it survives the process; `sync` makes it survive the
    machine. A record that a crash tore is cut off when the file is opened. ``written_at`` is when an earlier process wrote its
    last record, in seconds since the epoch.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        with storage_errors(self._path):
            self._descriptor = os.open(self._path, flags, 0o666)
            self.written_at = os.fstat(self._descriptor).st_mtime  # before we change the file ourselves
            self._position = _end_of_last_line(self._descriptor)
            os.ftruncate(self._descriptor, self._position)

    @property
    def position(self) -> int:
        """The size of the file in bytes, which is always the end of a record; part of a checkpoint."""
        return self._position

    def write(self, record: Mapping[str, object]) -> None:
        """Append one record, whole or not at all. Raises `StorageError`; the next `write` may succeed."""
        line = format_record(record)
        try:
            with storage_errors(self._path):
                write_all(self._descriptor, line)
        except StorageError:
            self._cut_back()
            raise
        self._position += len(line)

    def record(self, event: Event) -> None:
        """Append the record of `event`, if it has one; this method is the sink that records a run."""
        record = event.record()
        if record is not None:
            self.write(record)

    def sync(self) -> None:
        """Flush to the disk. Raises `StorageError` also when the file was deleted or replaced meanwhile."""
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
        with contextlib.suppress(OSError):  # readers skip a torn tail, and the next opening cuts it off
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
    return json.dumps(finite(record), ensure_ascii=True, allow_nan=False).encode() + b"\n"


def read_metrics(path: Path) -> list[Record]:
    """The records of a ``metrics.jsonl``, also of one that is being written; no file means no records.

    A last line that a crash tore is skipped. Raises `DataError` with ``file:line`` for any other line that is not a
    record, and `UserError` for a file that cannot be read.
    """
    return [record for record, _ in read_records(path)]


def read_records(path: Path, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Each record from the offset `start` on (the end of a record), with the offset at which its line ends.

    One line is in memory at a time. See `read_metrics` for what is raised.
    """
    path = Path(path)
    if not os.path.lexists(path):
        return
    bad: tuple[int, bytes] | None = None  # forgiven as long as no line follows it
    with open(open_plain_file(path), "rb") as file, reading_errors(path):
        file.seek(start)
        end = start
        for number, line in enumerate(iter(lambda: file.readline(LONGEST_LINE), b""), start=1):
            if not line.endswith(b"\n"):
                if len(line) < LONGEST_LINE:
                    return  # torn, or being written
                bad = number, line
            if bad is not None:
                raise DataError(_bad_line(path, start, *bad))
            end += len(line)
            record = _parse(line)
            if record is None:
                bad = number, line
            else:
                yield record, end


def position_at(path: Path, offset: int) -> Position:
    """The `Position` at `offset`, the end of a record of the file `path`."""
    first = max(0, offset - _TAIL)
    with open(open_plain_file(path), "rb") as file, reading_errors(path):
        file.seek(first)
        return Position(offset, file.read(offset - first))


def _bad_line(path: Path, start: int, number: int, line: bytes) -> str:
    where = f"{path}:{number}" if start == 0 else f"{path}, line {number} after byte {start},"
    return f"{where} is not a record of mlxsched: {_shortened(line)}. Remove the line."


def _position_after(path: Path, update: int) -> int:
    position = 0
    for record, end in read_records(path):
        if update_of(record["update"]) > update:
            break
        position = end
    return position


def _parse(line: bytes) -> Record | None:
    try:
        value = _decode(line.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _is_record(value) else None


def _is_record(record: Mapping[str, object]) -> bool:
    try:
        update_of(record.get("update"))
    except ValueError:
        return False
    return record.get("kind") in KINDS


def _shortened(line: bytes) -> str:
    text = line[:200].decode("utf-8", "replace")
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _end_of_last_line(descriptor: int) -> int:
    """The position after the last newline, searched from the end of the file."""
    end = size = os.fstat(descriptor).st_size
    while end > 0:
        if size - end > LONGEST_LINE:
            raise DataError(
                "metrics.jsonl ends in a line of more than 16 MiB. It is damaged: remove that line."
            )
        start = max(0, end - 65536)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
