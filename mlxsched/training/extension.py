"""How a run is extended or cooled down: from which checkpoint, and at which rates.

A longer run makes the same updates as a shorter one for as long as their rates agree. So a run is extended from the
last checkpoint up to which its rates are those of the longer run: with WSD that is the one before the cooldown, and
the result is bit-identical to a run planned for that length with the same tuning choice. Shapes such as cosine have no such checkpoint: they are
stretched if the run was stopped before its end, and warmed up again if it has ended.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, replace
from typing import NamedTuple

from mlxsched.errors import UsageError
from mlxsched.planning.schedule import ScheduleLike, resolve_schedule, warmup_updates
from mlxsched.runs.checkpoints import Checkpoint
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.earlier import keep_end
from mlxsched.runs.info import now
from mlxsched.runs.json_file import read_object
from mlxsched.runs.recording import read_recording
from mlxsched.runs.requests import Request
from mlxsched.schedules import Schedule
from mlxsched.schedules.controllers import Controller
from mlxsched.text import clock, counted
from mlxsched.training.assembly import make_pace
from mlxsched.training.checkpointer import STATE
from mlxsched.training.cooling import cooldown_steps, cooled, rewarmed
from mlxsched.training.pace import Horizon, Pace, Revision
from mlxsched.training.policies.time_budget import EXTENDED
from mlxsched.training.progress import Progress
from mlxsched.training.revisions import reshaped
from mlxsched.training.session import Session

REWARMED = 0.5  # the peak of a second warmup, as a share of the first peak


class Amount(NamedTuple):
    """A number of updates or epochs: the total, or how many ``more`` than the run has."""

    value: float
    more: bool


@dataclass(frozen=True)
class Wanted:
    """What `mlxsched extend` is asked for: one of the three lengths, and how the rate continues.

    Args:
        steps: updates.
        epochs: passes over the data.
        seconds: how long to train from now on.
        peak: warm up again to this rate.
        stretch: stretch the rest of the shape.
    """

    steps: Amount | None = None
    epochs: Amount | None = None
    seconds: float | None = None
    peak: float | None = None
    stretch: bool = False


@dataclass(frozen=True)
class Extension:
    """How a run will continue.

    Args:
        request: what is recorded.
        horizon: of the run after the extension.
        made: updates that were made before.
        how: on (as a longer run would), stretch, rewarm or cooldown.
        factor: what a rollback has multiplied the rates with.
        seconds_per_update: evaluations included; None without records.
        replaces: whether the run as it is now will be copied to ``earlier/``.
        exact: whether the result is bit-identical to a run planned for that length, with the same tuning choice.
        warmup: updates of warmup that the run has made.
    """

    request: Request
    horizon: Horizon
    made: int
    how: str
    factor: float
    seconds_per_update: float | None
    replaces: bool
    warmup: int
    exact: bool = False

    def rate(self, update: int) -> float:
        """The rate of an update."""
        return self.horizon.rate(update) * self.factor

    @property
    def left(self) -> int:
        """Updates that will be made."""
        return self.horizon.updates - self.request.at

    @property
    def seconds(self) -> float | None:
        """How long they take; None without records."""
        return None if self.seconds_per_update is None else self.left * self.seconds_per_update


class Past:
    """What a run has done: its checkpoints, its rates, and its time."""

    def __init__(self, session: Session, run: RunDirectory) -> None:
        self.session, self.run = session, run
        last = run.checkpoints.latest_good()
        if last is None:
            raise UsageError(
                f"{run.path} has no checkpoint, so there is nothing to continue from. Train it first: "
                f"mlxsched resume {run.path}."
            )
        self.last = last
        self.progress, self.pace = self.state_of(last)

    @property
    def made(self) -> int:
        """Updates made up to the last checkpoint."""
        return self.last.update

    @property
    def ended(self) -> bool:
        """Whether the run has reached its end, as planned or before."""
        return self.progress.ended is not None or self.made >= self.pace.updates

    @property
    def length(self) -> int:
        """The length that "more" is added to: the end that the run has reached, else the planned one."""
        return self.made if self.ended else self.pace.updates

    def state_of(self, checkpoint: Checkpoint) -> tuple[Progress, Pace]:
        """The counters and the pace of the run at ``checkpoint``, with later requests applied."""
        progress = Progress.from_dict(read_object(checkpoint.path / STATE))
        requests = self.run.info.requests
        if requests and not requests[-1].holds_for(progress.revisions):
            progress.follow(requests[-1])
        pace = make_pace(self.session)
        pace.load(progress.to_dict())
        return progress, pace

    @property
    def warmup(self) -> int:
        """Updates of the warmup that the run has made; a time budget may have changed the planned one."""
        horizon = self.pace.horizon
        schedules = [horizon.schedule, *(schedule for _, schedule in reversed(horizon.earlier))]
        return next((length for schedule in schedules if (length := warmup_updates(schedule))), 0)

    def is_alike(self, other: Horizon, update: int) -> bool:
        """Whether ``other`` makes ``update`` at the same rate, from as many rows."""
        ours = self.pace.horizon
        return ours.rate(update) == other.rate(update) and ours.rows_of(update) == other.rows_of(update)

    def trunk(self, longer: Horizon) -> Checkpoint | None:
        """The last checkpoint from which the run can continue as ``longer`` does; None if there is no useful one.

        Every shape shares its warmup with a longer one. Continuing from there would repeat the whole training.
        """
        alike = (update + 1 for update in reversed(range(self.made)) if self.is_alike(longer, update))
        found = self.run.checkpoints.latest_good(up_to=next(alike, 0))
        if found is None or found.update == self.made:
            return found
        return found if found.update > self.warmup + 1 else None

    @property
    def seconds_per_update(self) -> float | None:
        """Wall-clock time per update, evaluations included."""
        recording = read_recording(self.run.path)
        if not len(recording.train):
            return None
        spent = [recording.train.curve("seconds").values, recording.evaluations.curve("seconds").values]
        return sum(map(sum, spent)) / len(recording.train)


def plan_extension(session: Session, run: RunDirectory, wanted: Wanted) -> Extension:
    """How ``run`` becomes as long as ``wanted``; nothing is written.

    Raises:
        UsageError: the run is already that long, or ``wanted`` does not suit it.
    """
    past = Past(session, run)
    if wanted.seconds is not None:
        return _for_a_time(past, wanted, wanted.seconds)
    updates = _updates(past, wanted)
    if updates <= past.length:
        raise UsageError(
            f"{run.path} already has {counted(past.length, 'update')}; got {updates:,}. Give a larger total, or a plus to "
            "add: --steps +500, --epochs +1."
        )
    return _extended(past, wanted, updates)


def _updates(past: Past, wanted: Wanted) -> int:
    """The length that is wanted in updates or epochs."""
    per = 1 if wanted.epochs is None else past.session.plan.updates_per_epoch
    amount = wanted.epochs or wanted.steps or Amount(0, more=True)
    # As in the plan of a run: without the 1e-9, 0.1 epochs of 30 updates would be 4.
    return math.ceil(amount.value * per - 1e-9) + (past.length if amount.more else 0)


def _for_a_time(past: Past, wanted: Wanted, seconds: float) -> Extension:
    """As many updates as fit into ``seconds``, at the measured speed of the run."""
    per_update = past.seconds_per_update
    if per_update is None:
        raise UsageError(f"{past.run.path} has no records of its speed. Give --steps +N instead.")
    many = max(int(seconds / per_update), 1)
    # Where the run continues from does not depend on how much longer it gets.
    start = _extended(past, wanted, past.length + many).request.at
    if start + many <= past.length:
        raise UsageError(
            f"{clock(seconds)} is enough for about {counted(many, 'update')}, but the run must repeat {past.length - start:,} "
            f"before it gets longer. Give more than {clock((past.length - start) * per_update)}."
        )
    return _extended(past, wanted, start + many, seconds)


def _extended(past: Past, wanted: Wanted, updates: int, seconds: float | None = None) -> Extension:
    longer = Horizon(updates, lengthened(past.session, updates, past.warmup))
    start = past.trunk(longer)
    free = wanted.peak is None and not wanted.stretch
    if start is None or not free or not _can_go_on(past, longer.schedule):
        return _from_the_end(past, wanted, updates, seconds)
    # None keeps the present schedule, and with it the state of an adaptive one.
    now = past.pace.horizon
    same = longer.schedule == now.schedule and not now.earlier
    schedule = None if same else longer.schedule.to_dict()  # type: ignore[attr-defined]
    extension = _from(past, start, Revision(start.update, updates, schedule), "on", seconds)
    alike = all(past.is_alike(longer, update) for update in range(start.update))
    return replace(extension, exact=alike and seconds is None)


def _can_go_on(past: Past, longer: ScheduleLike) -> bool:
    """Whether ``longer``, the schedule of a longer run, has rates for more updates than were made."""
    if isinstance(longer, Controller) and longer != past.pace.horizon.schedule:
        return False  # its state belongs to the present one
    steps = getattr(longer, "steps", None)
    return isinstance(longer, Schedule) and (steps is None or steps > past.made)


def _from_the_end(past: Past, wanted: Wanted, updates: int, seconds: float | None) -> Extension:
    """Stretch the rest of the shape; warm up again if nothing is left."""
    at, pace = past.made, past.pace
    if wanted.peak is None and not past.ended:
        return _from(past, past.last, reshaped(pace.horizon, at, updates), "stretch", seconds)
    if wanted.stretch:
        raise UsageError(
            f"{past.run.path} has reached its end, so nothing of its shape is left to stretch. Leave out --stretch, or "
            "give a --peak to warm up to."
        )
    peak = REWARMED * past.session.plan.peak if wanted.peak is None else wanted.peak / pace.factor
    schedule = rewarmed(
        at, updates, pace.rate(max(at - 1, 0)) / pace.factor, peak, past.session.config.end_lr / pace.factor
    )
    return _from(past, past.last, Revision(at, updates, schedule.to_dict()), "rewarm", seconds)


def lengthened(session: Session, updates: int, warmup: int) -> ScheduleLike:
    """The schedule of ``session`` in a run of ``updates``, with a warmup of ``warmup`` updates.

    A warmup given as a ratio would grow with the run, although it is over.
    """
    config = session.config.model_copy(update={"warmup": warmup})
    origins = dict(session.origins)
    if origins.get("warmup", "default") != "default":
        origins["warmup"] = "the run"
    schedule = resolve_schedule(config, origins, updates).schedule
    if not isinstance(schedule, Schedule):
        return schedule
    # A spec may give its own length and warmup: wsd(steps=1000, warmup=0.1).
    changes = {"steps": updates, "warmup": warmup}
    fields = schedule.__dataclass_fields__
    return schedule.replace(**{name: value for name, value in changes.items() if name in fields})


def plan_cooldown(
    session: Session, run: RunDirectory, steps: int | None, shape: str, end_lr: float | None
) -> Extension:
    """How ``run``, which no process is training, ends with a decay from its last checkpoint; nothing is written.

    Raises:
        UsageError: its rate is already at its end.
    """
    past = Past(session, run)
    at, pace = past.made, past.pace
    if at == 0:
        raise UsageError(f"{run.path} has no checkpoint with an update: there is nothing to cool down.")
    steps_of_schedule = getattr(pace.horizon.schedule, "steps", None)
    if past.ended and steps_of_schedule is not None and steps_of_schedule <= at:
        raise UsageError(
            f"{run.path} has ended with its schedule complete: there is nothing to cool down. Train it for longer: "
            f"mlxsched extend {run.path} --epochs +1."
        )
    # A run that has ended cools down from the rate of its last update: its schedule says nothing of a next one.
    rate = pace.rate(at - 1 if past.ended else at)
    left = None if past.ended else pace.updates - at
    length = steps or cooldown_steps(at, left)
    revision = cooled(at, length, rate, _end(session, end_lr), shape=shape, factor=pace.factor)
    return _from(past, past.last, revision, "cooldown", None)


def _end(session: Session, end_lr: float | None) -> float:
    return session.config.end_lr if end_lr is None else end_lr


def _from(past: Past, start: Checkpoint, revision: Revision, how: str, seconds: float | None) -> Extension:
    """The extension that continues from ``start`` with ``revision``."""
    _, pace = past.state_of(start)
    # A longer run shares the updates before `start` with this one. Otherwise the revisions up to there stay in force.
    last = start.update - 1 if how == "on" else start.update
    kept = [entry for entry in pace.horizon.to_list() if entry["at"] <= last]
    reason = revision.reason or f"extended to {counted(revision.updates, 'update')}"
    if seconds is not None:
        reason = f"{EXTENDED} by {clock(seconds)}"
    planned = make_pace(past.session).horizon
    horizon = planned.replay(kept).revise(replace(revision, reason=reason))
    request = Request(
        kind="cooldown" if how == "cooldown" else "extend",
        id=secrets.token_hex(6),
        at=start.update,
        revisions=tuple(horizon.to_list()),
        max_time=seconds,
        created=now(),
    )
    replaces = past.ended or start.update < past.made
    speed = past.seconds_per_update
    return Extension(request, horizon, past.made, how, pace.factor, speed, replaces, past.warmup)


def record(run: RunDirectory, extension: Extension) -> Request:
    """Write the extension into the run, whose lock the caller holds; what it replaces is kept in ``earlier/``.

    From then on a resume completes it, even after a kill. Raises `UsageError` where the run has gone on since the
    extension was planned, which happens without the lock.
    """
    last = run.checkpoints.latest_good()
    if last is None or last.update != extension.made:
        raise UsageError(
            f"{run.path} has gone on since update {extension.made:,}, from which this was planned. Give the command again."
        )
    kept = keep_end(run) if extension.replaces else ""
    request = replace(extension.request, kept=kept)
    run.accept(request, status="stopped", message=f"asked to {request.kind} from update {request.at}")
    return request
