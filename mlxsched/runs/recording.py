"""What a run has recorded so far, as columns, also while it is being recorded."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.errors import DataError, UsageError
from mlxsched.runs.directory import METRICS_FILE
from mlxsched.runs.events import (
    Evaluated,
    Event,
    Notice,
    Recorded,
    UpdateMade,
    event_from_record,
    field_types,
)
from mlxsched.runs.metrics import START, Position, position_at, read_records

_DTYPES: dict[type, type[np.generic]] = {int: np.int64, float: np.float64, bool: np.bool_}


@dataclass(frozen=True)
class Curve:
    """The finite values of one column, and the updates that they belong to."""

    updates: list[int]
    values: list[float]


class Columns:
    """The events of one class as arrays of equal length, one for each field: ``columns["loss"]``.

    Whole numbers are int64, numbers float64, flags bool. NaN stands for a value that was not finite, or not recorded.
    """

    def __init__(self, of: type[Event], events: Sequence[Event]) -> None:
        self._arrays = {
            name: np.array([getattr(event, name) for event in events], _DTYPES[kind])
            for name, kind in field_types(of).items()
        }

    def __len__(self) -> int:
        return len(self._arrays["update"])

    def __getitem__(self, field: str) -> NDArray[Any]:
        return self._arrays[field]

    def curve(self, field: str) -> Curve:
        """The finite values of `field` over the updates."""
        values = self[field]
        known = np.isfinite(values)
        return Curve(self["update"][known].tolist(), values[known].tolist())


class EventColumns:
    """What has `events`, seen as columns; a base class for frozen dataclasses."""

    events: Sequence[Recorded]

    @cached_property
    def train(self) -> Columns:
        """One row for each update, with the fields of `UpdateMade`."""
        return Columns(UpdateMade, [event for event in self.events if isinstance(event, UpdateMade)])

    @cached_property
    def evaluations(self) -> Columns:
        """One row for each evaluation, with the fields of `Evaluated`."""
        return Columns(Evaluated, [event for event in self.events if isinstance(event, Evaluated)])


@dataclass(frozen=True)
class Recording(EventColumns):
    """The records of a run, in the order in which they were written."""

    path: Path
    """``metrics.jsonl``; it may not exist yet."""
    events: tuple[Recorded, ...]
    position: Position

    @property
    def name(self) -> str:
        """The name of the run's directory."""
        return self.path.parent.resolve().name

    @property
    def notices(self) -> tuple[Notice, ...]:
        """Spikes, rollbacks, notes."""
        return tuple(event for event in self.events if isinstance(event, Notice))

    def require_updates(self) -> None:
        """Raise `UsageError` when no update was recorded."""
        if not any(isinstance(event, UpdateMade) for event in self.events):
            raise UsageError(
                f"{self.path.parent} has no recorded learning rate: no update was made. Train first."
            )

    def follow(self) -> Recording:
        """The recording as it is now; only what was appended is read, unless the file was cut back."""
        appended = read_events(self.path, self.position)
        if appended is None:
            return read_recording(self.path.parent)
        events, position = appended
        return Recording(self.path, (*self.events, *events), position) if events else self


def read_recording(directory: Path) -> Recording:
    """The recording of the run in `directory`, also of a run that is going on; no file means no events.

    Raises `DataError` with ``file:line`` for a line that is not a record, and `UserError` for a file that cannot be
    read.
    """
    path = Path(directory) / METRICS_FILE
    events, position = read_events(path, START) or ([], START)
    return Recording(path, tuple(events), position)


def read_events(path: Path, position: Position) -> tuple[list[Recorded], Position] | None:
    """The events after `position` and the new position, or None when the file before `position` has changed."""
    if position.offset and not _unchanged(path, position):
        return None
    events: list[Recorded] = []
    end = position.offset
    with _collector_paused():
        for number, (record, line_end) in enumerate(read_records(path, position.offset), start=1):
            try:
                events.append(event_from_record(record))
            except ValueError as error:
                where = f"{path}:{number}" if position.offset == 0 else f"{path} after byte {end}"
                raise DataError(f"{where}: {error}. Remove the line.") from error
            end = line_end
    return events, position_at(path, end) if events else position


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection in the block: all of its objects stay, and searching them takes a quarter of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _unchanged(path: Path, position: Position) -> bool:
    return path.exists() and position_at(path, position.offset) == position
