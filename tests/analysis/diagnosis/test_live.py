"""What a run is told while it goes on: what is certain, and nothing that its end may undo."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from mlxsched.analysis.diagnosis import History
from mlxsched.analysis.diagnosis.live import certain
from mlxsched.runs.events import Evaluated, UpdateMade


def history(
    valid,
    loss=lambda update: 0.5 + 2.0 * math.exp(-update / 25),
    *,
    rate=2e-4,
    updates=200,
    noise=0.03,
    seed=0,
):
    """A run that goes on: an evaluation every 10 updates, the last one just made."""
    draw, events = np.random.default_rng(seed), [Evaluated(0, valid(0))]
    for update in range(updates):
        events.append(UpdateMade(update, loss(update) * math.exp(noise * draw.standard_normal()), rate))
        if (update + 1) % 10 == 0:
            events.append(Evaluated(update + 1, valid(update + 1)))
    return History(tuple(events), planned=400, status="running", peaks=(2e-5, 2e-4, 5e-3), is_run=True)


def overfits(update):
    return 2.5 - 0.02 * update if update <= 50 else 1.5 + 0.01 * (update - 50)


def told(made):
    return [finding.code for finding in certain(made)]


def test_overfitting_is_told_at_the_second_evaluation_that_shows_it():
    first = next(updates for updates in range(20, 200, 10) if told(history(overfits, updates=updates)))
    assert told(history(overfits, updates=first)) == ["overfitting"]
    assert first <= 120  # 1.5 is the lowest, at 50; 10% above it, twice
    assert "overfitting" in told(history(overfits, updates=200))


def test_a_single_evaluation_tells_nothing():
    """A divergence is sure from the losses alone: there is no evaluation before to confirm it."""
    rises = lambda update: 2.5 + 0.05 * update  # noqa: E731
    whole = history(rises, rises)
    losses = [event for event in whole.events if not isinstance(event, Evaluated)]
    assert told(replace(whole, events=(*losses, whole.events[-1]))) == []


def test_a_divergence_is_told():
    rises = lambda update: 2.5 + 0.05 * update  # noqa: E731
    assert told(history(rises, rises)) == ["diverged"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("updates", range(10, 200, 20))
def test_a_healthy_run_is_told_nothing(updates, seed):
    falls = lambda update: 0.6 + 2.0 * math.exp(-update / 25)  # noqa: E731
    assert told(history(falls, updates=updates, seed=seed)) == []
