"""The horizon of a run: how many updates it makes and at which rates, both of which may be revised while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mlxsched.errors import RunError
from mlxsched.planning.schedule import cooldown_start
from mlxsched.schedules import from_dict
from mlxsched.schedules.controllers import Controller

RateFunction = Callable[[int], Any]
"""A schedule, or a user's own function of the update index."""


@dataclass(frozen=True)
class Revision:
    """A change of the horizon.

    Args:
        at: the update from which on it holds; the rates of earlier updates stay what they were.
        updates: the length of the run from then on.
        schedule: the dictionary form of the schedule, a function of the update index like any other; None keeps
            the one that holds.
        reason: what a reader of the run should know.
    """

    at: int
    updates: int
    schedule: Mapping[str, Any] | None = None
    reason: str = ""


@dataclass(frozen=True)
class Horizon:
    """How far a run goes, and the rate of each update.

    A value: `revise` returns another one. Its revisions are part of every checkpoint, and `replay` applies them again, so
    a resumed run has the horizon of the one that was interrupted.

    Args:
        updates: number of updates of the run.
        schedule: the rate as a function of the update index.
        last_rows: rows of the last update of the plan where that has fewer than the others, else None.

    >>> horizon = Horizon(100, lambda update: 1e-3)
    >>> longer = horizon.revise(Revision(at=50, updates=150, schedule={"name": "constant", "peak": 1e-4}))
    >>> longer.rate(49), longer.rate(50), longer.updates
    (0.001, 0.0001, 150)
    >>> horizon.replay(longer.to_list()).rate(50)
    0.0001
    """

    updates: int
    schedule: RateFunction
    last_rows: int | None = None
    revisions: tuple[Revision, ...] = ()
    planned: int | None = None  # the updates of the plan, once they were revised
    earlier: tuple[tuple[int, RateFunction], ...] = ()  # schedules that were replaced, each with its end

    def rate(self, update: int) -> float:
        """The rate of update number ``update``, 0 for the first."""
        return float(self._schedule_of(update)(update))

    def rows_of(self, update: int) -> int | None:
        """The most rows that update number ``update`` may have; None for as many as any other.

        The last update of the plan keeps its number of rows only if it was made before the first revision.
        """
        end = self.updates if self.planned is None else self.planned
        made_as_planned = not self.revisions or update < self.revisions[0].at
        return self.last_rows if update == end - 1 and made_as_planned else None

    @property
    def trunk(self) -> int | None:
        """The number of updates before the cooldown that ends the run; None without one.

        A longer run makes the same updates up to there.
        """
        return cooldown_start(self.schedule)

    def revise(self, revision: Revision) -> Horizon:
        """The horizon with ``revision`` applied.

        Raises:
            RunError: it would end before it begins.
            ScheduleError: its schedule does not fit.
        """
        if not 0 <= revision.at <= revision.updates:
            raise RunError(f"a run can't be revised at update {revision.at} to end after {revision.updates}.")
        planned = self.updates if self.planned is None else self.planned
        revisions = (*self.revisions, revision)
        revised = replace(self, updates=revision.updates, revisions=revisions, planned=planned)
        if revision.schedule is None:
            return revised
        earlier = (*self.earlier, (revision.at, self.schedule))
        return replace(revised, schedule=from_dict(dict(revision.schedule)), earlier=earlier)

    def replay(self, revisions: Iterable[Mapping[str, Any]]) -> Horizon:
        """The planned horizon with the revisions of a checkpoint applied in order."""
        horizon = self
        for entry in revisions:
            horizon = horizon.revise(Revision(**entry))
        return horizon

    def to_list(self) -> list[dict[str, Any]]:
        """The revisions as plain data for a checkpoint."""
        return [asdict(revision) for revision in self.revisions]

    def _schedule_of(self, update: int) -> RateFunction:
        return next((schedule for end, schedule in self.earlier if update < end), self.schedule)


class Pace:
    """The rates of a run that is going on: its horizon, which a policy may revise, and what scales its rates.

    A rate is ``horizon.rate(update) * factor``; ``factor`` is below 1 after a rollback. An adaptive schedule (plateau,
    greedy) also follows the validation loss, which `observe` hands to it.
    """

    def __init__(self, horizon: Horizon) -> None:
        self._planned = self.horizon = horizon
        self.factor = 1.0
        self._live = horizon.schedule.live() if isinstance(horizon.schedule, Controller) else None

    @property
    def updates(self) -> int:
        """Updates of the run, as far as is known now."""
        return self.horizon.updates

    def rate(self, update: int) -> float:
        """The rate of update number ``update``, 0 for the first."""
        if self._live is not None and not self.horizon.earlier:
            return float(self._live(update)) * self.factor
        return self.horizon.rate(update) * self.factor

    def revise(self, revision: Revision) -> None:
        """Change the horizon from update ``revision.at`` on."""
        self.horizon = self.horizon.revise(revision)

    def observe(self, loss: float) -> None:
        """Tell an adaptive schedule the validation loss; nothing happens with any other."""
        if self._live is not None:
            self._live.observe(loss)

    def to_dict(self) -> dict[str, Any]:
        """What a checkpoint must know."""
        state = None if self._live is None else self._live.state_dict()
        return {"peak_factor": self.factor, "schedule_state": state, "revisions": self.horizon.to_list()}

    def load(self, saved: Mapping[str, Any]) -> None:
        """Continue from the `to_dict` of a checkpoint; an empty mapping is the beginning of the run."""
        self.horizon = self._planned.replay(saved.get("revisions") or [])
        self.factor = saved.get("peak_factor", 1.0)
        if self._live is None:
            return
        if saved.get("schedule_state") is None:
            self._live.reset()
        else:
            self._live.load_state_dict(saved["schedule_state"])
