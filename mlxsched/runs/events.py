"""The events of a run, and the one schema of ``metrics.jsonl``.

A training emits events; sinks receive them (see `mlxsched.runs.sinks`). Three kinds are recorded, one JSON object a
line::

    {"kind": "train", "update": 0, "loss": 2.31, "lr": 1e-4, ...}      UpdateMade
    {"kind": "eval", "update": 0, "loss": 2.40, "perplexity": 11.0}    Evaluated
    {"kind": "event", "update": 7, "code": "spike", "message": ...}    Notice

The keys are the fields of the classes below. `Event.record` writes them, `event_from_record` reads them, and no other
module spells them out.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import ClassVar

from mlxsched.runs.json_file import shortened

Record = dict[str, object]
"""One line of ``metrics.jsonl``."""

MOST_UPDATES = 10**12
"""Larger update numbers are damage: they would not fit a checkpoint's name, nor an array of integers."""

MOST_COUNT = 2**53
"""Larger counts are damage too: a reader keeps columns of them as int64."""


@dataclass(frozen=True)
class Event:
    """The base class; `update` is the number of updates made so far, except in `UpdateMade`.

    `kind` is that of the record, and None for events that are shown but never recorded.
    """

    kind: ClassVar[str | None] = None
    update: int

    def record(self) -> Record | None:
        """The record for ``metrics.jsonl``, or None when the event has none."""
        return None if self.kind is None else {"kind": self.kind, **asdict(self)}

    @classmethod
    def partial_record(cls, **values: float | str) -> Record:
        """A record with only the given fields, for a writer that does not know the others.

        Raises `TypeError` for a field that the class does not have, and when a required one is missing.

        >>> Evaluated.partial_record(update=3, loss=1.5, perplexity=4.48)
        {'kind': 'eval', 'update': 3, 'loss': 1.5, 'perplexity': 4.48}
        """
        cls(**values)  # type: ignore[arg-type]  # checks the names
        return {"kind": cls.kind, **values}


@dataclass(frozen=True)
class RunStarted(Event):
    """A run begins or resumes after `update` updates; it is planned to end after `updates`, in about `seconds`.

    `measuring` is the expected time in seconds of the measurement after the last update; 0 if it is not known.
    """

    updates: int
    resumed: bool = False
    seconds: float | None = None
    measuring: float = 0.0


@dataclass(frozen=True)
class Measured(Event):
    """The model was measured before the first update. The measurement after the last one is expected to take `seconds`."""

    seconds: float


@dataclass(frozen=True)
class LengthChanged(Event):
    """The run is to end after `updates` updates now."""

    updates: int


@dataclass(frozen=True)
class UpdateMade(Event):
    """One update. `update` is its index, 0 for the first.

    Attributes:
        loss: the mean over the update's targets, computed before the weights change.
        lr: the learning rate that was used.
        grad_norm: the global norm of the gradient before clipping.
        tokens: real tokens, padding not counted.
        targets: tokens whose prediction was scored.
        tokens_per_second: `tokens` over `seconds`.
        peak_memory_gb: MLX's peak since the start, in 1e9 bytes.
        seconds: wall-clock time of the update.
        smoothed: the running mean of the loss.
        applied: False when the loss or the gradient was not finite; the weights are then unchanged.

    Values that a foreign writer left out are NaN or 0.
    """

    kind: ClassVar[str | None] = "train"
    loss: float
    lr: float
    grad_norm: float = math.nan
    tokens: int = 0
    targets: int = 0
    tokens_per_second: float = math.nan
    peak_memory_gb: float = math.nan
    seconds: float = math.nan
    smoothed: float = math.nan
    applied: bool = True


@dataclass(frozen=True)
class Evaluated(Event):
    """The validation loss after `update` updates; `best` when no earlier one was lower."""

    kind: ClassVar[str | None] = "eval"
    loss: float
    perplexity: float = math.nan
    best: bool = False
    seconds: float = math.nan


@dataclass(frozen=True)
class CheckpointSaved(Event):
    """A checkpoint of the state after `update` updates is on the disk, in the directory `path`."""

    path: str


@dataclass(frozen=True)
class Notice(Event):
    """Something worth keeping: a spike, a non-finite update, a rollback, a pause, a note."""

    kind: ClassVar[str | None] = "event"
    code: str
    message: str


@dataclass(frozen=True)
class RunFinished(Event):
    """The run ended after `update` updates; `status` is that of ``run.json``, `message` says why it ended."""

    status: str
    message: str = ""


@dataclass(frozen=True)
class Tick(Event):
    """Progress inside something long that is not an update: `done` of `total` steps of `what`."""

    what: str
    done: int
    total: int


Recorded = UpdateMade | Evaluated | Notice
"""What a record can be read as."""

Sink = Callable[[Event], None]
"""Whatever receives events: ``metrics.jsonl``, the terminal, a tracker."""

RECORDED: dict[str, type[UpdateMade] | type[Evaluated] | type[Notice]] = {
    "train": UpdateMade,
    "eval": Evaluated,
    "event": Notice,
}
KINDS = tuple(RECORDED)


def event_from_record(record: Mapping[str, object]) -> Recorded:
    """The event that `record` was written from.

    Unknown keys are ignored. A missing value is that of the class; null, which stands for a number that is not
    finite, is NaN.

    Raises:
        ValueError: the kind is unknown, a required key is missing, or a value has the wrong type.

    >>> event_from_record({"kind": "eval", "update": 3, "loss": None}).loss
    nan
    >>> event_from_record({"kind": "train", "update": 3, "loss": "low", "lr": 1e-4})
    Traceback (most recent call last):
    ValueError: 'loss' must be a number; got 'low'
    """
    cls = RECORDED.get(str(record.get("kind")))
    if cls is None:
        raise ValueError(f"'kind' must be one of {', '.join(KINDS)}; got {shortened(record.get('kind'))}")
    values = {
        # Nearly all values are right as they are, and a call for each would double the time of 100,000 records.
        name: value
        if type(value) is of and (of is not int or 0 <= value <= _USUAL)  # type: ignore[operator]
        else _typed(name, value, of)
        for name, of in field_types(cls).items()
        if (value := record.get(name, _MISSING)) is not _MISSING
    }
    values = _defaults(cls) | values
    if len(values) < len(field_types(cls)):
        missing = next(name for name in field_types(cls) if name not in values)
        raise ValueError(f"{missing!r} is missing")
    event = object.__new__(cls)  # the constructor of a frozen dataclass takes as long as parsing the JSON
    vars(event).update(values)
    return event


def field_types(cls: type[Event]) -> dict[str, type]:
    """The name and the type of each field: float, int, bool or str."""
    if cls not in _FIELD_TYPES:  # evaluating annotations takes longer than parsing a record
        hints = typing.get_type_hints(cls)
        _FIELD_TYPES[cls] = {field.name: hints[field.name] for field in fields(cls)}
    return _FIELD_TYPES[cls]


def _defaults(cls: type[Event]) -> dict[str, object]:
    if cls not in _DEFAULTS:
        _DEFAULTS[cls] = {field.name: field.default for field in fields(cls) if field.default is not MISSING}
    return _DEFAULTS[cls]


def _typed(name: str, value: object, of: type) -> object:
    if of is float:
        return _number(name, value)
    if name == "update":
        return update_of(value)
    if not isinstance(value, of) or (of is int and isinstance(value, bool)):
        raise ValueError(f"{name!r} must be a {_NAMES[of]}; got {shortened(value)}")
    if of is int and abs(value) > MOST_COUNT:  # type: ignore[arg-type]
        raise ValueError(f"{name!r} is too large for a count")
    return value


def _number(name: str, value: object) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name!r} must be a number; got {shortened(value)}")
    try:
        return float(value)
    except OverflowError:  # JSON has integers of any size
        raise ValueError(f"{name!r} is too large for a number") from None


def update_of(value: object) -> int:
    """`value` as the number of an update; raises `ValueError` when it is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_UPDATES:
        raise ValueError(
            f"'update' must be a whole number from 0 to {MOST_UPDATES:,}; got {shortened(value)}"
        )
    return value


_MISSING = object()
_USUAL = min(MOST_UPDATES, MOST_COUNT)
_NAMES = {int: "whole number", bool: "true or false", str: "text"}
_DEFAULTS: dict[type[Event], dict[str, object]] = {}
_FIELD_TYPES: dict[type[Event], dict[str, type]] = {}
