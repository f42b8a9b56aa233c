"""Rules for the fit: slow runs, plateaus, over- and underfitting, and decays that end too early or too late."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlxsched.analysis.diagnosis.finding import Diagnosis, confidence
from mlxsched.analysis.diagnosis.history import History
from mlxsched.analysis.diagnosis.robust import falls, ratio
from mlxsched.text import number

_FEWEST = 20  # updates; a trend in fewer says nothing
_SLOW_DROP = 0.1  # share of the initial loss: a run that learned less has hardly started
_FLAT = 0.02  # share of the loss
_LEVEL = 0.06  # the noise of a stationary loss at a high rate
_JUMPS = 4  # updates; fewer at a rate are a jump, and no peak
_IDLE = 0.05  # of the peak: a rate below it changes next to nothing
_OVERFIT = 1.03  # last validation loss over the lowest
_OVERFIT_BY_HEART = 1.01  # the same where the training loss has fallen far below it
_RISING = 0.3  # of the pairs of evaluations since then may fall: after a spike, or at too high a rate, half of them do


def too_slow(history: History) -> Iterator[Diagnosis]:
    """The loss hardly fell, and it fell as fast at the end as at the beginning."""
    if len(history.losses) < _FEWEST or not history.start > 0:
        return
    losses = history.seen[1]
    end = float(losses[-1]) if len(losses) > 1 else history.end
    drop = 1 - ratio(end, history.start)
    low = history.peaks[0] if history.peaks else None
    # A loss that cannot fall any further looks the same: only a rate below the usual ones tells them apart, or a
    # steady fall.
    is_low = low is not None and history.peak < low
    if history.peaks and history.peak >= history.peaks[1]:
        return  # a usual rate: the advice to raise it would do harm
    steady = len(losses) > 3 and falls(losses) > 0.95 and _first_half(losses) < 0.75
    if not -0.02 < drop < _SLOW_DROP or not (is_low or steady):
        return
    usual = f"; {number(low)} is the lowest usual rate" if low is not None and is_low else ""
    yield Diagnosis(
        "too_slow",
        "warning",
        f"the loss fell by {max(drop, 0):.1%} in {history.made:,} updates, at a rate of at most {number(history.peak)}{usual}",
        why="the rate is too low",
        fix=f"Train again with --learning-rate {number(10 * history.peak)}",
        confidence=confidence(_SLOW_DROP - drop, 0.0, _SLOW_DROP / 2),
    )


def _first_half(losses: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """The share of the whole fall that the first half of the evaluations brought; 0.5 for a straight line."""
    fall = float(losses[0] - losses[-1])
    return float(losses[0] - losses[len(losses) // 2]) / fall if fall > 0 else 1.0


def early_plateau(history: History) -> Iterator[Diagnosis]:
    """The loss stood still for half of the run while the rate stayed high."""
    updates, losses = history.seen
    if len(losses) < 6 or not len(history.rates):
        return
    half = len(losses) // 2
    before, later = float(losses[0] - losses[half]), losses[half:]
    halves = [float(np.median(part)) for part in np.array_split(later, 2)]
    moved = abs(1 - ratio(halves[1], halves[0]))
    level = ratio(later.max() - later.min(), halves[1]) < _LEVEL
    high = float(np.min(history.rates[len(history.rates) // 2 : -1], initial=np.inf)) > 0.3 * history.peak
    if not high or not level or not moved < _FLAT or not before > 2 * _FLAT * losses[0]:
        return
    yield Diagnosis(
        "early_plateau",
        "warning",
        f"the validation loss has stayed at {np.median(later):.4g} since update {updates[half]:.0f}, "
        f"within {moved:.1%}, at a high rate",
        why="the rate is too high to get closer to the minimum, or the trained parameters can't learn more",
        fix="Let the rate decay (--schedule linear), or train more parameters (a higher rank or more layers)",
        update=int(updates[half]),
        confidence=confidence(_FLAT - moved, 0.0, _FLAT / 2),
    )


def overfitting(history: History) -> Iterator[Diagnosis]:
    """The validation loss rose from its lowest value while the training loss went on falling."""
    updates, losses = history.seen
    if len(losses) < 4:
        return
    best = int(losses.argmin())
    rise = ratio(float(np.median(losses[-2:])), losses[best])
    bound = _OVERFIT_BY_HEART if history.memorized else _OVERFIT
    if best > len(losses) - 3 or not rise > bound:
        return
    if not history.memorized and (
        falls(losses[best:]) > _RISING or not _learned_since(history, updates[best])
    ):
        return
    yield Diagnosis(
        "overfitting",
        "warning",
        f"the validation loss was lowest at update {updates[best]:.0f} ({losses[best]:.4g}) and rose to "
        f"{losses[-1]:.4g}, while the training loss fell to {history.end:.4g}",
        why="the model memorized the rows; the rate is not the cause",
        fix="Use the best adapter, which the run saved; train for fewer epochs, or on more rows",
        update=int(updates[best]),
        confidence=confidence(rise, bound, 1.1),
    )


def _learned_since(history: History, update: float) -> bool:
    """Whether the training loss fell by 3% or more from around ``update`` to the end."""
    around = history.losses[np.abs(history.updates - update) <= max(5, len(history.losses) // 20)]
    return len(around) > 0 and history.end <= 0.97 * float(np.median(around))


def underfitting(history: History) -> Iterator[Diagnosis]:
    """The rate was close to zero for much of the run."""
    rates = history.train["lr"]
    if len(rates) < _FEWEST or not history.peak > 0:
        return
    high = float(np.sort(rates[np.isfinite(rates)])[-_JUMPS:][0])
    active = np.flatnonzero(rates > _IDLE * high)
    idle = 1 - (active[-1] + 1) / len(rates)
    if not idle > 0.3 or (
        history.is_run and not (history.schedule_steps or history.made) < 0.8 * history.made
    ):
        return  # a step or cubic decay is low for long on purpose: only a schedule for a shorter run is a mistake
    yield Diagnosis(
        "underfitting",
        "warning",
        f"the rate was below {_IDLE:.0%} of its peak for the last {idle:.0%} of the run, which changed almost nothing",
        why="the schedule ends long before the run",
        fix=f"Give the schedule {len(rates):,} steps, or train for {active[-1] + 1:,} updates",
        update=int(history.train["update"][active[-1]]),
        confidence=confidence(idle, 0.3, 0.5),
    )


def slow_decay(history: History) -> Iterator[Diagnosis]:
    """The rate fell after its peak, and was still high when the run ended."""
    rates = history.train["lr"]
    if len(rates) < _FEWEST or history.status in ("stopped", "failed", "interrupted", "running"):
        return
    if history.planned is not None and history.made < history.planned:
        return
    if history.is_run and (history.schedule_steps or 0) <= 1.1 * history.made:
        return  # it ended where its schedule ends
    last = ratio(rates[-1], history.peak)
    after = rates[int(rates.argmax()) :]
    if not 0.3 < last < 0.99 or bool((np.diff(after) > 1e-9 * history.peak).any()):
        return
    yield Diagnosis(
        "slow_decay",
        "warning",
        f"the run ended at {last:.0%} of its highest rate",
        why="the schedule was planned for a longer run, and the weights still have the noise of a high rate",
        fix=f"mlxsched cooldown {history.target}"
        if history.is_run
        else f"Give the schedule {len(rates):,} steps",
        update=history.made - 1,
        confidence=confidence(last, 0.3, 0.5),
    )


def still_improving(history: History) -> Iterator[Diagnosis]:
    """The validation loss was falling to the end."""
    updates, losses = history.seen
    if len(losses) < 5 or losses.argmin() != len(losses) - 1 or history.status in ("stopped", "failed"):
        return
    since = int(np.searchsorted(updates, 0.75 * updates[-1]))
    gain = 1 - ratio(losses[-1], losses[min(since, len(losses) - 2)])
    if not gain > _FLAT:
        return
    yield Diagnosis(
        "still_improving",
        "note",
        f"the validation loss was still falling, by {gain:.1%} in the last quarter of the run",
        why="more updates would lower it further",
        fix=f"mlxsched extend {history.target} --epochs +1" if history.is_run else "Train for longer",
        update=int(updates[-1]),
        confidence=confidence(gain, _FLAT, 2 * _FLAT),
    )
