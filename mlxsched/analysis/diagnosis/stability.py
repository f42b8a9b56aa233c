"""Rules for unstable losses: non-finite, diverged, early explosion, spikes, oscillation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from mlxsched.analysis.diagnosis.finding import Diagnosis, confidence
from mlxsched.analysis.diagnosis.history import WINDOW, History
from mlxsched.analysis.diagnosis.robust import Floats, ratio, running_median
from mlxsched.text import counted, number

_FEW = 5  # updates of a run that was stopped because of its losses
_FEWEST = 10  # updates from which on a level, a trend or noise can be told
_SPIKE = 8.0  # deviations above it; the noise of small batches has a heavy tail
_SPIKE_SHARE = 0.3  # and this share of the level,
_SPIKE_LEAST = 0.05  # and this share of the start's loss, so that noise around a tiny loss is none
ABOVE_START = 1.02  # of the validation loss: worse than the model as it came
_ABOVE = 1.15  # of the start's training loss: its noise stays below, and most of a run ends far below
_EARLY_RISE = 1.2  # of the validation loss; LoRA+ on a small model rises by up to 16% at first, and does well
_WARMUP = 0.1  # of the run: the longest warmup that is advised
_JUMPED, _NO_JUMP = (
    "the rate had just risen",
    "Choose a schedule without a jump; `mlxsched check` shows where it is",
)
_ROWS, _CHECK = (
    "the rate did not change, so the rows of this update are the likely cause",
    "Look at the rows with `mlxsched data check`",
)
_JUMP = 1.5  # factor between two rates that explains a spike


def non_finite(history: History) -> Iterator[Diagnosis]:
    """Updates whose loss or gradient was not finite."""
    bad = np.flatnonzero(~history.good)
    if not len(bad):
        return
    first = int(history.train["update"][bad[0]])
    yield Diagnosis(
        "non_finite",
        "error",
        f"{counted(len(bad), 'update')} had a non-finite loss or gradient, the first at update {first}",
        why="the rate is too high, or rows are damaged",
        fix=f"Train again with --learning-rate {history.lower_rate(3)}; `mlxsched data check` looks for bad rows",
        update=first,
    )


def diverged(history: History) -> Iterator[Diagnosis]:
    """The training loss ended above that of the model as it came, and stayed there."""
    if len(history.losses) < (_FEW if history.status == "failed" else _FEWEST):
        return
    half = history.losses[len(history.losses) // 2 :]
    rise = ratio(min(history.end, float(np.median(half))), history.train_start)
    if not rise > _ABOVE:
        return
    level = running_median(history.losses, 5)
    above = np.flatnonzero(level <= _ABOVE * history.train_start)
    update = int(history.updates[above[-1]]) if len(above) else 0
    yield Diagnosis(
        "diverged",
        "error",
        f"the training loss rose from {history.train_start:.4g} to {history.end:.4g} and did not recover",
        why=f"the rate of up to {number(history.peak)} is too high",
        fix=f"Train again with --learning-rate {history.lower_rate(10)}",
        update=update,
        confidence=confidence(rise, _ABOVE, 1.6),
    )


def early_explosion(history: History) -> Iterator[Diagnosis]:
    """The loss rose far in the first third of the run and recovered later, or fell as the rate fell."""
    ended_above = history.end > _ABOVE * history.train_start
    if len(history.losses) < 2 * _FEWEST or (ended_above and not _recovers(history)):
        return
    found = max(_early_training_rise(history), _early_validation_rise(history), key=lambda rise: rise.over)
    if not found.over > 1:
        return
    warmup = int(history.updates[history.rates.argmax()])
    # A warmup of n updates reaches its peak at update n or the one before.
    long_enough = warmup + 1 >= _WARMUP * (history.planned or history.made)
    longer = "" if long_enough else f"--warmup {_WARMUP:g}, or with "
    yield Diagnosis(
        "early_explosion",
        "warning",
        f"the {found.kind} loss rose from {found.low:.4g} to {found.top:.4g} at update {found.update}",
        why=f"the rate of up to {number(history.peak)} is too high"
        if long_enough
        else f"the rate reached its peak after {counted(warmup, 'update')}, before Adam's moments had settled",
        fix=f"Train again with {longer}--learning-rate {history.lower_rate(3)}",
        update=found.update,
        confidence=confidence(found.over, 1.0, 1.3),
    )


def _recovers(history: History) -> bool:
    """Whether more than half of a rise in the first third is gone since the rate fell below a third of its peak.

    Such a run is above its start at the end because it had too few updates left, not because it still diverges.
    """
    level, half = running_median(history.losses, 5), len(history.losses) // 2
    top, fell = int(level.argmax()), float(np.median(history.rates[half:])) < history.peak / 3
    if top > len(level) // 3 or not fell or history.status == "failed":
        return False
    return bool(history.end - history.train_start < (level[top] - history.train_start) / 2)


class Rise(NamedTuple):
    """A loss that rose; ``over`` is how far, in units of what counts as far."""

    over: float
    kind: str
    low: float
    top: float
    update: int


def _early_training_rise(history: History) -> Rise:
    """Above the start, by the median of five updates: two rows of garbage among three are no explosion."""
    early = running_median(history.losses, 5)[2 : len(history.losses) // 3]
    top, start = int(early.argmax()), history.train_start
    bound = max(1.25, 1 + 3 * history.noise)
    return Rise(
        ratio(early[top], start) / bound, "training", start, early[top], int(history.updates[top + 2])
    )


def _early_validation_rise(history: History) -> Rise:
    """Above the start, or far above an earlier evaluation; the rows are the same each time. It must be made up for."""
    updates, losses = history.seen
    early = losses[: (2 * len(losses)) // 5 + 1]
    if len(early) < 3 or not losses[-1] < early.min():
        return Rise(0.0, "validation", 0.0, 0.0, 0)
    over = np.maximum(early / np.minimum.accumulate(early) / _EARLY_RISE, early / early[0] / ABOVE_START)
    top = int(over.argmax())
    return Rise(over[top], "validation", float(early[: top + 1].min()), early[top], int(updates[top]))


def spike(history: History) -> Iterator[Diagnosis]:
    """Losses of one to three updates that stand out from those around them, or an evaluation after a jump of the rate."""
    yield from [*_training_spike(history), *_validation_spike(history)][:1]


def _training_spike(history: History) -> Iterator[Diagnosis]:
    losses = history.losses
    if len(losses) < WINDOW:
        return
    level = np.maximum(running_median(losses, WINDOW), _before(history))
    above = losses - level
    bound = np.maximum(max(_SPIKE * history.noise, _SPIKE_SHARE) * level, _SPIKE_LEAST * history.train_start)
    places = np.flatnonzero(above > bound)
    if not len(places) or len(places) > max(3, len(losses) // 20):
        return
    worst = int(places[np.argmax(above[places] - bound[places])])
    why, fix = (
        (_JUMPED, _NO_JUMP) if _jumps(history.rates[max(worst - 3, 0) : worst + 1]) else (_ROWS, _CHECK)
    )
    yield Diagnosis(
        "spike",
        "warning",
        f"the training loss was {losses[worst]:.4g} at update {history.updates[worst]}, while {level[worst]:.4g} is typical there"
        + (f"; {counted(len(places), 'update')} are outliers like this" if len(places) > 1 else ""),
        why=why,
        fix=fix,
        update=int(history.updates[worst]),
        confidence=confidence(ratio(above[worst], bound[worst]), 1.0, 1.5),
    )


def _validation_spike(history: History) -> Iterator[Diagnosis]:
    updates, losses = history.seen
    for at in range(1, len(losses) - 1):
        since = (history.updates >= updates[at - 1] - 1) & (history.updates < updates[at])
        over = ratio(losses[at], max(losses[at - 1], losses[at + 1]))
        if over > 1 + _SPIKE_SHARE / 2 and _jumps(history.rates[since]):
            yield Diagnosis(
                "spike",
                "warning",
                f"the validation loss rose from {losses[at - 1]:.4g} to {losses[at]:.4g} at update {updates[at]:.0f} "
                "and fell again",
                why=_JUMPED,
                fix=_NO_JUMP,
                update=int(updates[at]),
                confidence=confidence(over, 1 + _SPIKE_SHARE / 2, 1.5),
            )


def _before(history: History) -> Floats:
    """The median of the ten losses before each one: the first losses of a fast fall are above what follows, and no spikes."""
    padded = np.concatenate([np.full(WINDOW // 2, history.train_start), history.losses[:-1]])
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, WINDOW // 2), axis=1))


def _jumps(rates: Floats) -> bool:
    """Whether the rate rises by half or more from one update to the next, from a rate that is not next to nothing."""
    return bool(((rates[1:] > _JUMP * rates[:-1]) & (rates[:-1] > 0.01 * rates.max(initial=0.0))).any())


def oscillating(history: History) -> Iterator[Diagnosis]:
    """The validation loss goes up and down while the rate is high; its rows are the same each time, so it is no noise."""
    updates, losses = history.seen
    if len(losses) < 6 or history.end > _ABOVE * history.train_start or not len(history.rates):
        return
    first = len(losses) // 10 + 1
    later = losses[first:]
    steps = np.diff(later)
    turns = int((np.sign(steps[1:]) != np.sign(steps[:-1])).sum())
    climbed = ratio(steps[steps > 0].sum(), float(np.median(later)))
    still_high = float(np.median(history.rates[-max(5, len(history.rates) // 10) :])) > 0.3 * history.peak
    # The bound is for up to eight steps: small noise adds up over many evaluations.
    bound = 0.08 * max(len(steps) / 8, 1)
    if turns < 3 or not climbed > bound or not still_high or history.memorized:
        return
    yield Diagnosis(
        "oscillating",
        "warning",
        f"the validation loss changed direction {turns} times and rose by a total of {climbed:.0%} of its level",
        why=f"at a rate of {number(history.peak)} the updates overshoot, or have too few rows",
        fix=f"Train again with --learning-rate {history.lower_rate(3)}, or with a larger --batch-size",
        update=int(updates[first]),
        confidence=confidence(climbed, bound, 3 * bound),
    )
