"""The cooldown of a run whose validation loss has stopped improving."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from mlxsched.analysis.plateau import FALSE_STOP, has_stopped_improving
from mlxsched.runs.events import Notice
from mlxsched.text import counted
from mlxsched.training.cooling import cooldown_steps, cooled
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import Action, Finish, Policy, Report, Revise
from mlxsched.training.progress import Progress

REASON = "plateau: "


class UntilPlateau(Policy):
    """End the run with a cooldown once the validation loss has stopped improving at a constant rate.

    The test is that of `mlxsched.analysis.plateau`. Evaluations of the warmup and of a cooldown do not count. The
    cooldown takes a fifth of the updates made so far, but at most the rest of the run; without a plateau, the run ends
    as planned.

    Args:
        pace: of the run.
        warmup: updates before the rate is constant.
        end_lr: the last rate.
    """

    def __init__(self, pace: Pace, warmup: int, end_lr: float) -> None:
        self._pace, self._warmup, self._end_lr = pace, warmup, end_lr

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        update, seen = progress.update, progress.plateau
        if not self._counts(update) or not math.isfinite(loss) or (seen and seen[-1][0] >= update):
            return
        seen.append([update, loss])
        updates, losses = zip(*seen, strict=True)
        if not has_stopped_improving([int(one) for one in updates], losses):
            return
        if self._pace.rate(update) <= self._end_lr:  # nothing to cool down to
            yield Finish(f"the validation loss has stopped improving after {counted(update, 'update')}")
            return
        steps = cooldown_steps(update, self._pace.updates - update)
        text = (
            f"the validation loss has stopped improving ({counted(len(seen), 'evaluation')}, false with a probability of at "
            f"most {FALSE_STOP:.0%}): cooldown in {counted(steps, 'update')}"
        )
        rate, factor = self._pace.rate(update), self._pace.factor
        yield Report(Notice(update, "plateau", text))
        yield Revise(replace(cooled(update, steps, rate, self._end_lr, factor=factor), reason=REASON + text))

    def _counts(self, update: int) -> bool:
        """Whether the rate has been constant up to ``update`` and still is."""
        trunk = self._pace.horizon.trunk
        return self._warmup <= update < (self._pace.updates if trunk is None else trunk)
