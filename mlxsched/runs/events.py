"""What a training tells those who watch it: the CLI's display, metrics.jsonl, trackers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """The base; ``update`` is the index of the update for `UpdateMade`, else the number of updates made."""

    kind: ClassVar[str] = "event"
    update: int

    def record(self) -> dict[str, Any]:
        """The record for metrics.jsonl."""
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class UpdateMade(Event):
    """One update: mean loss over its targets before the update, the rate it used, the raw gradient norm."""

    kind: ClassVar[str] = "train"
    loss: float
    lr: float
    grad_norm: float
    tokens: int
    targets: int
    tokens_per_second: float
    peak_memory_gb: float
    seconds: float
    smoothed: float
    applied: bool = True


@dataclass(frozen=True)
class Evaluated(Event):
    """The validation loss after ``update`` updates; ``best`` if none was lower."""

    kind: ClassVar[str] = "eval"
    loss: float
    perplexity: float
    best: bool
    seconds: float


@dataclass(frozen=True)
class Notice(Event):
    """Anything else worth keeping: a spike, a non-finite update, a rollback, a pause."""

    code: str
    message: str


@dataclass(frozen=True)
class Tick(Event):
    """Progress inside something long that is not an update; for displays only, never recorded."""

    what: str
    done: int
    total: int
