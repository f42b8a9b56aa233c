"""A run that ends on time with its schedule completed: its length follows from the measured speed."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from mlxsched.runs.events import Notice, UpdateMade
from mlxsched.text import clock as clock_text
from mlxsched.text import counted, short_time
from mlxsched.training.answer_times import growth_of_answers
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import Action, Policy, Report, Revise
from mlxsched.training.progress import Progress
from mlxsched.training.revisions import cuts_warmup, reshaped, rises_again
from mlxsched.training.timing import RECENT, Costs, Work

REASON = "time budget: "
EXTENDED = f"{REASON}extended"  # how the reason of an extension by a time begins
_INSTEAD = re.compile(" instead of [0-9,]+")


def without_former_length(text: str) -> str:
    """The text of a decision without the previous length, which may not have been shown.

    >>> without_former_length("230 updates instead of 275 fit into the time limit")
    '230 updates fit into the time limit'
    """
    return _INSTEAD.sub("", text, count=1)


SKIPPED = 3  # first updates of a process, which compile
MEASURED = 8  # updates that are enough for a first decision,
FEWEST = 2  # or so many that took this share of the budget
MEASURED_SHARE = 0.02
LOOK_AGAIN = 0.1  # of the time or the updates that are left, between two looks at the speed
TOLERANCE = 0.02  # of the time that is left: a smaller deviation changes nothing
FINEST = 0.005  # of the budget, as TOLERANCE near the end
EARLY = 0.03  # of the budget: for less than that, the last few updates are not made more
TAIL = (3, 10)  # fewest and most updates of a schedule that has to end although the time is up
TAIL_SHARE = 0.02  # of the budget that they may take, within these limits


@dataclass(frozen=True)
class Budget:
    """How long a run may take.

    Args:
        seconds: from the start of the session to its end; the time in which the machine sleeps does not count.
        started: when this process began with the run, by the clock of the policy; None for now.
        most: the most updates; None for any number.
        last_record: when an interrupted process wrote its last record, in seconds since the epoch; None for a new run.
    """

    seconds: float
    started: float | None = None
    most: int | None = None
    last_record: float | None = None


class TimeBudget(Policy):
    """Choose the number of updates so that the run ends after ``budget.seconds``, everything included.

    After `MEASURED` updates, the number of updates that fit is computed from the time per token of the last `RECENT`
    updates, with evaluations, checkpoints and the measurement at the end. The speed is checked again whenever a tenth
    of the remaining time has passed or a tenth of the remaining updates is made, so more often near the end; the length
    changes if the predicted end is off by more than 2% of the remaining time. `reshaped` keeps the rate free of jumps.

    The decisions are revisions of the horizon, so checkpoints have them and a resume replays them. Only the worker that
    leads a run has policies; the others receive rates. ``Progress.times`` has what was spent before an interruption.

    Args:
        budget: the time.
        pace: of the run.
        work: what the run does apart from its updates.
        warmup_of: the warmup that a run of so many updates would have; None for as long as planned.
        clock: seconds; a test has its own.

    Must be the first policy: what an evaluation and a checkpoint take is measured from its turn on.
    """

    def __init__(
        self,
        budget: Budget,
        pace: Pace,
        work: Work,
        warmup_of: Callable[[int], int | None] = lambda updates: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget, self._pace, self._work, self._warmup_of = budget, pace, work, warmup_of
        self._clock = clock
        self._origin = clock() if budget.started is None else budget.started
        self._before: float | None = None  # what earlier processes have spent
        self._costs = Costs()
        self._mark = clock() - self._origin  # since when something is measured
        self._made = 0  # updates of this process
        self._fresh = 0  # of them, those since the last look
        self._next_look = 0.0
        self._next_left = 0  # updates left at which to look, if that comes before `_next_look`

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        now = self._now(progress)
        if progress.update == 0 and not self._costs.measuring:
            # The test rows are measured again at the end, when answers have the length of those trained on.
            self._costs.measuring = (now - self._mark) * growth_of_answers(progress.results.get("before", {}))
        self._mark = now
        self._keep(progress, now)
        return ()

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        now = self._now(progress)
        self._costs.see_evaluation(now - self._mark)
        self._mark = now
        return ()

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        now = self._now(progress)
        self._see_update(now - self._mark, made.tokens, saved=progress.saved_update == made.update)
        self._mark = now
        self._keep(progress, now)
        if self._is_time_to_look(now, self._pace.updates - progress.update):
            yield from self._settle(progress, self._budget.seconds - now)
            self._next_left = int((1 - LOOK_AGAIN) * (self._pace.updates - progress.update))

    def _now(self, progress: Progress) -> float:
        """Seconds of the budget that are spent; a rollback does not restore any."""
        if self._before is None:
            self._before = self._spent_before(progress)
            self._mark += self._before
        return self._before + self._clock() - self._origin

    def _spent_before(self, progress: Progress) -> float:
        """What earlier processes have spent: up to the checkpoint, and from there to their last record."""
        times, last = progress.times, self._budget.last_record
        self._costs.evaluation = times.get("evaluation", 0.0)
        self._costs.saving, self._costs.measuring = times.get("saving", 0.0), times.get("measuring", 0.0)
        lost = 0.0 if last is None or "at" not in times else max(last - times["at"], 0.0)
        return times.get("spent", 0.0) + lost

    def _keep(self, progress: Progress, now: float) -> None:
        costs = self._costs
        progress.times = {
            "spent": now,
            "at": time.time(),
            "evaluation": costs.evaluation,
            "saving": costs.saving,
            "measuring": costs.measuring,
        }

    def _see_update(self, seconds: float, tokens: int, *, saved: bool) -> None:
        self._made += 1
        if self._made <= SKIPPED or tokens == 0:
            return
        if not saved:
            self._costs.see_update(seconds, tokens)
            self._fresh += 1
        elif self._costs.updates:
            self._costs.saving = max(seconds - tokens * self._costs.per_token(), 0.0)

    def _is_time_to_look(self, now: float, to_do: int) -> bool:
        if self._next_look:
            # If the machine was slow when the length was decided, it may now make all of the updates before that time.
            due = now >= self._next_look or to_do <= self._next_left
            return (due and self._fresh > FEWEST) or to_do == 1
        measured = sum(seconds for seconds, _ in self._costs.updates)
        enough = self._fresh >= FEWEST and measured >= MEASURED_SHARE * self._budget.seconds
        return enough or self._fresh >= MEASURED

    def _settle(self, progress: Progress, left: float) -> Iterable[Action]:
        first = not self._next_look
        self._next_look, self._fresh = self._budget.seconds - left + LOOK_AGAIN * max(left, 0.0), 0
        made, planned = progress.update, self._pace.updates
        last = min(max((planned - made) // 4, MEASURED), RECENT)  # near the end the latest speed counts
        over = self._work.seconds(self._costs, made, planned, last) - left
        total = self._fitting(made, planned, left, last)
        tolerance = max(TOLERANCE * left, FINEST * self._budget.seconds)
        too_early = over < -EARLY * self._budget.seconds
        if total == planned or (abs(over) <= tolerance and not first):
            return
        if planned - made < TAIL[0] and not too_early:
            return
        text = self._text(total, planned, last, first=first)
        warmup = self._warmup_of(total)
        revision = reshaped(self._pace.horizon, made, total, warmup=warmup, back=True, reason=REASON + text)
        if cuts_warmup(revision):
            text = f"{text}; too few for the warmup, which was cut short: {self._more_time()}"
        if rises_again(revision):
            text = f"{text}; the rate, which fell too early, rises again"
        yield Revise(replace(revision, reason=REASON + text))
        yield Report(Notice(made, "time_budget", text))

    def _fitting(self, made: int, planned: int, left: float, last: int) -> int:
        """The updates that fit, within what the run may have, and enough of them to end the schedule."""
        total = self._work.fitting(self._costs, made, left, last)
        update = self._work.tokens * self._costs.per_token(last)
        tail = min(max(round(TAIL_SHARE * self._budget.seconds / update), TAIL[0]), TAIL[1])
        total = max(total, min(made + tail, planned))
        most = self._most()
        return total if most is None else min(total, most)

    def _most(self) -> int | None:
        """The limit of the run; a cooldown that was asked for is one too, and an extension by a time lifts it."""
        for revision in reversed(self._pace.horizon.revisions):
            if revision.reason.startswith(EXTENDED):
                return None
            if not revision.reason.startswith(REASON):
                return revision.updates
        return self._budget.most

    def _more_time(self) -> str:
        """What gives a run more updates: the test rows are measured twice."""
        tested = self._costs.measuring > EARLY * self._budget.seconds
        return f"give a longer --max-time{', or --no-test' if tested else ''}"

    def _text(self, total: int, planned: int, last: int, *, first: bool) -> str:
        seconds = self._work.tokens * self._costs.per_token(last)
        assumed = first and self._most() is None
        instead = "" if assumed else f" instead of {planned:,}"
        limit = clock_text(self._budget.seconds)
        return f"{counted(total, 'update')}{instead} fit into the time limit of {limit}, at {short_time(seconds)} each"
