"""Schedules that follow the validation loss, in real runs: they act, their state is kept, and a resume is exact."""

from __future__ import annotations

import json

import pytest

from mlxsched.schedules import greedy, one_cycle, plateau, warmup_constant

# A rate at which nothing is learnt, so that each evaluation after the first is a failure for the controller.
STUCK = {"learning_rate": 1e-12, "iters": 12, "steps_per_eval": 2, "save_every": 2, "warmup": 0}


def rates(run):
    return [record["lr"] for record in run.read_metrics() if record["kind"] == "train"]


def last_state(run):
    newest = sorted(run.path.glob("checkpoints/*/state.json"))[-1]
    return json.loads(newest.read_text())


def test_a_name_alone_makes_a_controller_of_the_run_s_own_rate(session):
    made = session(schedule="plateau", learning_rate=3e-4, warmup=4)
    assert made.schedule == plateau(warmup_constant(3e-4, 4))
    assert made.plan.peak == 3e-4 and made.plan.warmup == 4
    assert session(schedule="greedy(patience=1)", learning_rate=3e-4, warmup=0).schedule == greedy(
        warmup_constant(3e-4, 0), patience=1
    )


def test_plateau_lowers_the_rate_of_a_run_that_does_not_get_better(train):
    run, progress, _ = train(schedule="plateau(patience=1, decay_rate=0.5)", **STUCK)
    # The loss of update 2 is the first one observed; those of 4 and 6 are no better, and so on in pairs.
    assert rates(run) == pytest.approx([1e-12] * 6 + [5e-13] * 4 + [2.5e-13] * 2, rel=1e-6, abs=0)
    assert progress.schedule_state["factor"] == 0.25
    assert last_state(run)["schedule_state"] == progress.schedule_state


def test_greedy_raises_the_rate_of_a_run_that_gets_better(train):
    run, _, _ = train(
        schedule="greedy(patience=0, decay_rate=0.8)",
        learning_rate=2e-3,
        iters=8,
        steps_per_eval=2,
        val_batches=8,
        warmup=0,
    )
    assert rates(run)[2] == pytest.approx(2e-3 / 0.8, rel=1e-6)
    assert max(rates(run)) > 2e-3


@pytest.mark.parametrize("schedule", ["plateau(patience=0)", "greedy(patience=0, decay_rate=0.7)"])
def test_a_resumed_run_is_the_run_that_was_not_interrupted(schedule, train, interrupted, resume):
    flags = {**STUCK, "learning_rate": 5e-3, "schedule": schedule}
    whole, progress, _ = train("whole", **flags)
    assert progress.schedule_state["factor"] != 1
    made, path = interrupted("cut", 7, **flags)  # one update beyond the checkpoint at 6: it must be forgotten
    run, resumed = resume(made, path)
    assert resumed.schedule_state == progress.schedule_state
    assert rates(run) == rates(whole)
    for name in ("adapters/adapters.safetensors", "checkpoints/000012/optimizer.safetensors"):
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_one_cycle_keeps_its_own_warmup_unless_one_is_asked_for(session):
    assert session(schedule="one_cycle", learning_rate=1e-3).schedule == one_cycle(1e-3, 12)
    assert session(schedule="one_cycle", learning_rate=1e-3, warmup=3).plan.warmup == 3
