"""The policy that reports a finding while the run goes on: once, recorded, and the same after a resume."""

from __future__ import annotations

import pytest

from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.training.pace import Horizon, Pace
from mlxsched.training.policies import verdict
from mlxsched.training.policies.verdict import Verdict
from mlxsched.training.progress import Progress


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(
        tmp_path / "run",
        config={"optimizer": "adamw", "fine_tune_type": "lora"},
        origins={},
        versions={},
        plan={"updates": 300},
    )
    with made.lock():
        yield made


def follow(run, policy, start, stop):
    """Record updates and evaluations of a run that overfits, as the loop does; the notices of ``policy``."""
    progress, notices = Progress(), []
    for update in range(start, stop):
        run.metrics.record(UpdateMade(update, 2.5 - 0.01 * update, 2e-4))
        if (update + 1) % 10 == 0:
            progress.update = update + 1
            loss = 2.5 - 0.02 * update if update < 50 else 1.5 + 0.01 * (update - 50)
            run.metrics.record(Evaluated(update + 1, loss))
            for action in policy.after_evaluation(progress, loss):
                run.metrics.record(action.notice)
                notices.append(action.notice)
    return notices


def test_a_finding_is_reported_once_and_again_not_after_a_resume(run):
    pace = Pace(Horizon(300, lambda update: 2e-4))
    (notice,) = follow(run, Verdict(run, pace), 0, 150)
    assert notice.code == "overfitting" and "best adapter" in notice.message
    assert 60 < notice.update < 150
    assert follow(run, Verdict(run, pace), 150, 200) == []


def test_a_judgement_that_fails_is_not_tried_again_and_the_run_goes_on(run, monkeypatch):
    calls = []

    def fails(history):
        calls.append(history)
        raise IndexError("a mistake in a detector")

    monkeypatch.setattr(verdict, "certain", fails)
    assert follow(run, Verdict(run, Pace(Horizon(300, lambda update: 2e-4))), 0, 50) == []
    assert len(calls) == 1


def test_the_end_is_left_to_the_final_verdict_and_damage_to_a_resume(run):
    assert follow(run, Verdict(run, Pace(Horizon(50, lambda update: 2e-4))), 0, 150) == []
    (run.path / "metrics.jsonl").write_text("{}\n")
    progress = Progress()
    progress.update = 160
    policy = Verdict(run, Pace(Horizon(300, lambda update: 2e-4)))
    assert list(policy.after_evaluation(progress, 1.0)) == []
