"""Running averages, spikes and the best evaluation; and what a checkpoint keeps of them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from mlxsched.errors import RunError
from mlxsched.training.progress import SMOOTHING, SPIKE_AFTER, Progress


def after(losses):
    progress = Progress()
    spikes = []
    for loss in losses:
        progress.update += 1
        if progress.see_loss(float(loss)):
            spikes.append(progress.update)
    return progress, spikes


def test_the_smoothed_loss_is_an_exponential_mean():
    losses = np.random.default_rng(0).random(50) + 1
    expected = losses[0]
    for loss in losses[1:]:
        expected = SMOOTHING * expected + (1 - SMOOTHING) * loss
    assert after(losses)[0].smoothed == pytest.approx(expected)


def test_a_spike_is_far_above_the_running_mean_and_noise_is_not():
    noise = 2 + 0.1 * np.random.default_rng(1).standard_normal(200)
    assert after(noise)[1] == []
    noise[150] = 9.0
    assert after(noise)[1] == [151]


def test_the_first_updates_are_never_a_spike():
    assert after([1.0] * (SPIKE_AFTER - 2) + [50.0])[1] == []


def test_the_best_evaluation_ignores_what_is_not_a_number():
    progress = Progress()
    assert [progress.see_evaluation(loss) for loss in (2.0, math.nan, 1.0, 1.5, math.inf)] == [
        True,
        False,
        True,
        False,
        False,
    ]
    assert progress.best_loss == 1.0
    assert progress.evaluations_since_best == 2


def test_progress_survives_json_to_the_last_bit():
    progress, _ = after(np.random.default_rng(2).random(30))
    progress.results["before"] = {"loss": 0.1 + 0.2}
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress


def test_a_state_of_another_version_is_refused():
    with pytest.raises(RunError, match="version"):
        Progress.from_dict({"update": 3, "moon_phase": "full"})
