"""Keeping the adapter at the end of each cycle of the schedule, where the rate is lowest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.analysis.findings import Finding
from mlxsched.planning.cycles import cycle_ends
from mlxsched.planning.schedule import ScheduleLike
from mlxsched.runs.events import Notice
from mlxsched.text import counted
from mlxsched.training.policies.base import Action, Evaluate, Policy, Report
from mlxsched.training.progress import Progress

MOST = 20
"""Snapshots of a run: each is an evaluation, and a copy of the trained parameters on the disk."""


@dataclass(frozen=True)
class Snapshots(Policy):
    """Evaluate the adapter after each of the updates that ``ends`` returns, and ``keep`` it.

    A run with restarts passes through several minima, and the last one need not be the best (Huang et al., 2017, arXiv
    1704.00109).
    """

    ends: Callable[[], tuple[int, ...]]
    keep: Callable[[int], None]

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        update = progress.update
        if update not in self.ends() or update in {one["update"] for one in snapshots_in(progress.results)}:
            return
        if progress.evaluated_update != update:
            yield Evaluate()
        self.keep(update)
        loss = progress.evaluated_loss if progress.evaluated_update == update else None
        listed = progress.results["snapshots"] = with_snapshot(progress.results, update, loss)
        best = ", the best snapshot so far" if listed[-1]["best"] else ""
        measured = "" if loss is None else f", validation loss {loss:.4f}{best}"
        yield Report(Notice(update, "snapshot", f"kept in snapshots/{update:06d}{measured}"))


def snapshots_in(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The snapshots that ``results`` list: update, validation loss, and whether it is the best.

    Empty where the list is damaged: results come from a file.
    """
    found = results.get("snapshots")
    keys = {"update", "loss", "best"}
    sound = isinstance(found, list) and all(isinstance(one, dict) and keys <= one.keys() for one in found)
    return found if sound and found is not None else []


def with_snapshot(results: Mapping[str, Any], update: int, loss: float | None) -> list[dict[str, Any]]:
    """The snapshots in ``results`` and another one, the best marked.

    >>> with_snapshot({"snapshots": [{"update": 50, "loss": 0.5, "best": True}]}, 100, 0.4)
    [{'update': 50, 'loss': 0.5, 'best': False}, {'update': 100, 'loss': 0.4, 'best': True}]
    """
    kept = [one for one in snapshots_in(results) if one["update"] < update]
    kept = [*kept, {"update": update, "loss": loss, "best": False}]
    known = [one["loss"] for one in kept if one["loss"] is not None]
    return [{**one, "best": bool(known) and one["loss"] == min(known)} for one in kept]


def kept_ends(schedule: ScheduleLike, updates: int) -> tuple[int, ...]:
    """The cycle ends at which a snapshot is kept: all of them, or of many every n-th, the last one included."""
    ends = cycle_ends(schedule, updates)
    every = -(-len(ends) // MOST)
    return ends[::-1][:: every or 1][::-1]


def snapshot_findings(schedule: ScheduleLike, updates: int) -> list[Finding]:
    """What the plan says of the snapshots of a run; nothing for a schedule without cycles."""
    ends, kept = cycle_ends(schedule, updates), kept_ends(schedule, updates)
    if not ends:
        return []
    which = f"{len(kept)} of {len(ends)}" if len(kept) < len(ends) else "each of its"
    at = f"after updates {', '.join(map(str, kept))}" if len(kept) <= 8 else f"the last after {kept[-1]:,}"
    evidence = f"the schedule has {counted(len(ends), 'cycle')}: the adapter at {which} ends is evaluated and kept under snapshots/ ({at})"
    return [Finding("snapshots", "note", evidence)]
