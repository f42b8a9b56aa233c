"""The policy that cools a run down when its validation loss stops improving."""

from __future__ import annotations

import math

import mlxsched as ms
from mlxsched.training.pace import Horizon, Pace
from mlxsched.training.policies.base import Report, Revise
from mlxsched.training.policies.plateau import UntilPlateau
from mlxsched.training.progress import Progress

PEAK = 1e-3


def follow(curve, schedule, updates=1000, every=10):
    """Evaluate a run of which ``curve`` gives the loss; returns progress and pace at its end, and the notices."""
    pace, progress, notices = Pace(Horizon(updates, schedule)), Progress(), []
    policy = UntilPlateau(pace, warmup=50, end_lr=0.0)
    for update in range(0, updates, every):
        progress.update = update
        for action in policy.after_evaluation(progress, curve(update)):
            if isinstance(action, Revise):
                pace.revise(action.revision)
            elif isinstance(action, Report):
                notices.append((update, action.notice))
        progress = Progress.from_dict(progress.to_dict())  # as a resume reads it
    return progress, pace, notices


def rising(update):
    return 1 + abs(update - 200) / 1000


def test_a_plateau_ends_the_run_with_a_cooldown():
    _, pace, notices = follow(rising, ms.wsd(PEAK, 1000, 50))
    ((update, notice),) = notices  # once: evaluations of the cooldown do not count
    assert 200 < update < 400 and notice.code == "plateau" and "at most 5%" in notice.message
    assert pace.updates == update + round(0.2 * update)
    assert pace.rate(update) == PEAK and pace.rate(pace.updates) == 0
    assert 0 < pace.rate(pace.updates - 1) < 0.02 * PEAK


def test_a_constant_rate_is_cooled_down_too():
    _, pace, notices = follow(rising, ms.warmup_constant(PEAK, 50))
    assert len(notices) == 1 and pace.updates < 1000 and pace.rate(pace.updates) == 0


def test_without_a_plateau_the_run_ends_as_planned():
    progress, pace, notices = follow(lambda update: 1 + 1 / (1 + update / 50), ms.wsd(PEAK, 1000, 50))
    assert notices == [] and pace.updates == 1000
    assert [update for update, _ in progress.plateau] == list(range(50, 800, 10))


def test_a_loss_that_is_not_finite_is_left_out():
    progress, _, _ = follow(
        lambda update: math.nan if update == 100 else 2 - update / 1000, ms.wsd(PEAK, 1000, 50)
    )
    assert 100 not in [update for update, _ in progress.plateau]
