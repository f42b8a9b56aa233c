"""Running averages, spikes and the best evaluation; and what a checkpoint keeps of them."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from mlxsched.errors import RunError
from mlxsched.runs.requests import Request
from mlxsched.training.progress import SMOOTHING, SPIKE_AFTER, Progress


def after(losses):
    progress = Progress()
    spikes = []
    batches = SimpleNamespace(n_tokens=9, n_targets=3)
    for loss in losses:
        progress.see_update(SimpleNamespace(loss=float(loss), applied=True), batches, seconds=0.5)
        if progress.last_was_spike:
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


def test_an_update_that_was_not_applied_counts_and_leaves_the_averages():
    progress, _ = after([2.0, 2.0])
    bad = SimpleNamespace(loss=math.nan, applied=False)
    progress.see_update(bad, SimpleNamespace(n_tokens=9, n_targets=3), seconds=0.5)
    assert (progress.update, progress.bad_in_a_row, progress.smoothed) == (3, 1, 2.0)
    assert (progress.tokens, progress.targets, progress.seconds) == (27, 9, 1.5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("update", 10**30),
        ("update", -1),
        ("update", True),
        ("update", 1.5),
        ("tokens", "many"),
        ("seconds", math.nan),
        ("smoothed", 10**400),
        ("peak_factor", -1),
        ("peak_factor", 0),
        ("best_update", "3"),
        ("recent_losses", [1.0] * 1000),
        ("recent_losses", ["low"]),
        ("revisions", ["longer"]),
        ("revisions", [{"at": 3, "updates": 5}]),
        ("revisions", [{"at": "3", "updates": 5, "schedule": None, "reason": ""}]),
        ("revisions", [{"at": 3, "updates": 5, "schedule": 7, "reason": ""}]),
        ("schedule_state", [1]),
        ("results", []),
        ("ended", 3),
    ],
)
def test_a_state_with_a_value_that_no_checkpoint_has_is_refused(key, value):
    with pytest.raises(RunError, match=key):
        Progress.from_dict({"update": 3, key: value})


def test_the_time_limit_of_a_request_counts_from_then_on():
    progress = Progress(update=10, times={"spent": 500.0, "at": 1e9, "evaluation": 2.0})
    revision = {"at": 10, "updates": 20, "schedule": None, "reason": ""}
    progress.follow(Request("extend", "x", 10, (revision,), max_time=60.0))
    assert progress.times == {"evaluation": 2.0}
