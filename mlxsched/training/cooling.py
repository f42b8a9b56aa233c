"""The rates of a run after its plan: a cooldown from the current rate, and a second warmup with its decay."""

from __future__ import annotations

from mlxsched.errors import UsageError
from mlxsched.schedules import Schedule, constant, linear, shift, with_warmup
from mlxsched.schedules.combinators import cooldown
from mlxsched.text import counted
from mlxsched.training.pace import Revision

COOLDOWN = 0.2  # the length of a cooldown, as a share of the updates made
SHORTEST = 10  # the fewest updates of a cooldown
REWARMUP = 0.1  # the length of a second warmup, as a share of what is added


def cooldown_steps(made: int, left: int | None = None) -> int:
    """The default length of a cooldown after ``made`` updates: a fifth of them, at most what is ``left`` of the run.

    A decay over 10 to 20% of a run reaches the loss of a schedule that was planned for its length (Hägele et al. 2024,
    arXiv 2405.18392).

    >>> cooldown_steps(1000), cooldown_steps(1000, left=50), cooldown_steps(12)
    (200, 50, 10)
    """
    length = max(round(COOLDOWN * made), SHORTEST)
    return length if left is None else max(min(length, left), 1)


def cooled(
    at: int, steps: int, rate: float, end: float, *, shape: str = "1-sqrt", factor: float = 1.0
) -> Revision:
    """The revision that ends a run with a decay from ``rate`` at update ``at`` to ``end`` in ``steps`` updates.

    Both rates are those of updates; ``factor`` is what a rollback has multiplied the schedule by.

    Raises:
        UsageError: ``rate`` is not above ``end``.
    """
    if rate <= end:
        raise UsageError(
            f"the rate is already {rate:.3g}, and a cooldown would end at {end:.3g}: there is nothing to cool down. Give a "
            "lower --end-lr, or train for longer with `mlxsched extend`."
        )
    decay = cooldown(constant(rate / factor), at, steps, end / factor, shape)
    return Revision(at, at + steps, decay.to_dict(), f"cooldown in {counted(steps, 'update')}")


def rewarmed(at: int, updates: int, rate: float, peak: float, end: float) -> Schedule:
    """From ``rate`` at update ``at`` in a straight line to ``peak``, and on to ``end`` at update ``updates``.

    The warmup is a tenth of these updates. It does not start at rate 0: that update would change nothing.

    >>> schedule = rewarmed(100, 200, rate=0.0, peak=1e-4, end=0.0)
    >>> 0 < schedule(100) < 1e-5, schedule(110), round(schedule(155), 12), schedule(200)
    (True, 0.0001, 5e-05, 0.0)
    """
    total = updates - at
    warmup = 0 if rate >= peak else min(max(round(REWARMUP * total), 1), total - 1)
    decay = linear(peak, total - warmup, end)
    first = max(rate, peak / (warmup + 1))
    return shift(with_warmup(decay, warmup, first) if warmup else decay, at)
