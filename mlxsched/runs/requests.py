"""What a user asks of a run after it has begun: to go on for longer, or to end with a cooldown.

A request that was accepted is an entry of ``requests`` in ``run.json``, so that a resume follows it even if no
checkpoint was written since. A run that another process is training is asked with a file, ``request.json``, which that
process reads between two updates.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlxsched.errors import UserError
from mlxsched.runs import atomic
from mlxsched.runs.json_file import is_count, read_object

REQUEST_FILE = "request.json"
KINDS = ("extend", "cooldown")
SHAPES = ("1-sqrt", "linear", "cosine")
"""The shapes of a cooldown that may be asked for."""

_REVISION = {"at", "updates", "schedule", "reason"}
_KEPT = re.compile(r"(earlier/[0-9]{6,12}(-[0-9]{1,6})?)?")
_LARGEST = 4096  # bytes of a request file


@dataclass(frozen=True)
class Request:
    """A request that was accepted.

    Args:
        kind: one of `KINDS`.
        id: tells requests apart.
        at: the number of updates after which it holds. A checkpoint of more updates belongs to the run as it was
            before, unless its own revisions begin with these.
        revisions: all revisions of the horizon from then on, in plain form; the last one is that of the request.
        max_time: the time in seconds that the run may take from then on; None for any.
        kept: the directory in the run, such as ``earlier/001000``, with the run as it was before; empty if nothing
            was lost.
        created: when it was made.
    """

    kind: str
    id: str
    at: int
    revisions: tuple[dict[str, Any], ...]
    max_time: float | None = None
    kept: str = ""
    created: str = ""

    @property
    def updates(self) -> int:
        """The length of the run from then on."""
        return int(self.revisions[-1]["updates"])

    def holds_for(self, revisions: Sequence[Mapping[str, Any]]) -> bool:
        """Whether a checkpoint with ``revisions`` was written after the request was accepted."""
        return tuple(revisions[: len(self.revisions)]) == self.revisions

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``run.json``."""
        return {**asdict(self), "revisions": list(self.revisions)}

    @classmethod
    def from_dict(cls, value: object) -> Request:
        """The inverse of `to_dict`; raises `ValueError` for anything that `to_dict` does not return."""
        if not isinstance(value, dict) or value.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(f"a request has the keys {', '.join(cls.__dataclass_fields__)}")
        revisions, seconds = value["revisions"], value["max_time"]
        fits = (
            value["kind"] in KINDS
            and all(isinstance(value[key], str) for key in ("id", "kept", "created"))
            and _KEPT.fullmatch(value["kept"])
            and isinstance(revisions, list)
            and all(map(is_revision, revisions))
            and revisions
            and revisions[-1]["at"] == value["at"]
            and (seconds is None or _is_rate(seconds))
        )
        if not fits:
            raise ValueError("a request has a kind, and revisions of which the last one holds from `at` on")
        return cls(**{**value, "revisions": tuple(revisions)})


def is_revision(value: object) -> bool:
    """Whether ``value`` can be an entry of `mlxsched.training.pace.Horizon.to_list`."""
    if not isinstance(value, dict) or value.keys() != _REVISION:
        return False
    schedule = value["schedule"]
    counts = is_count(value["at"]) and is_count(value["updates"]) and value["at"] <= value["updates"]
    return counts and isinstance(schedule, dict | None) and isinstance(value["reason"], str)


@dataclass(frozen=True)
class CooldownAsked:
    """A request to the process ``pid`` on ``host``: end the run with a decay.

    Args:
        id: that of the `Request` that accepts it.
        pid: the process that holds the lock of the run; any other one ignores the request, which is out of date.
        host: where that process runs.
        steps: updates of the decay; None for the default.
        shape: one of `SHAPES`.
        end_lr: the last rate; None for that of the run.
    """

    id: str
    pid: int
    host: str
    steps: int | None = None
    shape: str = SHAPES[0]
    end_lr: float | None = None

    @property
    def is_for_us(self) -> bool:
        """Whether this process is asked."""
        return (self.pid, self.host) == (os.getpid(), socket.gethostname())

    @classmethod
    def from_dict(cls, value: Mapping[str, object]) -> CooldownAsked:
        """The inverse of ``asdict``; raises `ValueError` for anything else."""
        steps, end = value.get("steps"), value.get("end_lr")
        fits = (
            value.keys() == cls.__dataclass_fields__.keys()
            and isinstance(value["id"], str)
            and is_count(value["pid"])
            and isinstance(value["host"], str)
            and (steps is None or (is_count(steps) and steps))
            and value["shape"] in SHAPES
            and (end is None or _is_rate(end))
        )
        if not fits:
            raise ValueError("it is not a request for a cooldown")
        return cls(**value)  # type: ignore[arg-type]  # checked just above


def ask(run: Path, asked: CooldownAsked) -> None:
    """Leave a request for the process that trains the run in the directory `run`; an earlier one is replaced."""
    atomic.write_json(run / REQUEST_FILE, asdict(asked))


def read_asked(run: Path) -> CooldownAsked | None:
    """The request to this process, if there is one; one that is damaged or out of date is removed."""
    path = run / REQUEST_FILE
    if not os.path.lexists(path):  # the usual case, which costs one system call per update
        return None
    try:
        asked = CooldownAsked.from_dict(read_object(path, largest=_LARGEST))
    except (UserError, ValueError):
        asked = None
    if asked is not None and asked.is_for_us:
        return asked
    withdraw(run)
    return None


def is_asked(run: Path, id: str) -> bool:
    """Whether the request `id` is still waiting for its answer."""
    try:
        return read_object(run / REQUEST_FILE, largest=_LARGEST).get("id") == id
    except UserError:
        return False


def withdraw(run: Path) -> None:
    """Remove the request, if there is one."""
    with contextlib.suppress(OSError):
        os.unlink(run / REQUEST_FILE)


def _is_rate(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]
