"""What another process asks of a run that is going on: `mlxsched cooldown RUN`."""

from __future__ import annotations

from collections.abc import Iterable

from mlxsched.errors import UsageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.runs.info import now
from mlxsched.runs.requests import CooldownAsked, Request, read_asked, withdraw
from mlxsched.text import counted
from mlxsched.training.cooling import cooldown_steps, cooled
from mlxsched.training.pace import Pace, Revision
from mlxsched.training.policies.base import Action, Policy, Report, Revise
from mlxsched.training.progress import Progress


class Requests(Policy):
    """End the run with a cooldown when that is asked for.

    The request is in ``run.json`` before its first update is made, so that a run that is killed follows it again. One
    that comes too late, or that does not fit, is refused with a notice.

    Args:
        run: whose lock this process holds.
        pace: of the run.
        end_lr: the last rate, where the request gives none.
    """

    def __init__(self, run: RunDirectory, pace: Pace, end_lr: float) -> None:
        self._run, self._pace, self._end_lr = run, pace, end_lr

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        asked = read_asked(self._run.path)
        if asked is None:
            return
        update = progress.update
        try:
            revision = self._revision(asked, update, done)
        except UsageError as error:
            yield Report(Notice(update, "request_refused", str(error)))
            withdraw(self._run.path)  # which is the answer: who asks then reads the reason
            return
        yield Revise(revision)
        revisions = tuple(self._pace.horizon.to_list())
        self._run.accept(Request("cooldown", asked.id, update, revisions, created=now()))
        withdraw(self._run.path)
        yield Report(Notice(update, "cooldown", _text(revision, self._pace.rate(update))))

    def _revision(self, asked: CooldownAsked, update: int, done: bool) -> Revision:
        if done:
            raise UsageError("the run has ended, so there is nothing to cool down.")
        steps = asked.steps or cooldown_steps(update, self._pace.updates - update)
        end = self._end_lr if asked.end_lr is None else asked.end_lr
        rate, factor = self._pace.rate(update), self._pace.factor
        return cooled(update, steps, rate, end, shape=asked.shape, factor=factor)


def _text(revision: Revision, rate: float) -> str:
    steps = counted(revision.updates - revision.at, "update")
    return (
        f"cooling down from {rate:.3g} in {steps}: the run ends after {counted(revision.updates, 'update')}"
    )
