"""Each policy by itself: what it answers to a given progress."""

from __future__ import annotations

import math

import pytest

from mlxsched.errors import DivergedError, Stopped
from mlxsched.platform import power
from mlxsched.runs.events import UpdateMade
from mlxsched.training.policies import host
from mlxsched.training.policies.base import Abort, Evaluate, Finish, Report, RollBack, Save
from mlxsched.training.policies.divergence import NonFinite, Spikes
from mlxsched.training.policies.evaluation import Evaluation, NameBadRows, Patience
from mlxsched.training.policies.saving import Saving
from mlxsched.training.policies.stopping import StopOnSignal
from mlxsched.training.progress import Progress


def made(update=7, loss=1.0, applied=True):
    numbers = {"grad_norm": 1.0, "tokens": 9, "targets": 3, "tokens_per_second": 9.0, "peak_memory_gb": 1.0}
    return UpdateMade(update, loss=loss, lr=1e-3, seconds=1.0, smoothed=loss, applied=applied, **numbers)


def test_evaluations_are_due_at_the_start_every_n_updates_and_at_the_end_once():
    policy = Evaluation(lambda: 5)
    due = [bool(list(policy.between_updates(Progress(update=u), done=u == 12))) for u in range(13)]
    assert [u for u, is_due in enumerate(due) if is_due] == [0, 5, 10, 12]
    assert list(policy.between_updates(Progress(update=5, evaluated_update=5), done=False)) == []


def test_rows_are_blamed_for_a_nan_only_if_their_loss_was_never_finite():
    def message(start):
        (report,) = NameBadRows(lambda: "rows.jsonl:9").after_evaluation(
            Progress(update=2, start_evaluation=start), math.nan
        )
        return report.notice.message

    assert "rows.jsonl:9" in message(math.nan) and "rows.jsonl:9" in message(None)
    assert "rows.jsonl" not in message(7.85) and "7.8500 before training. Lower --learning-rate" in message(
        7.85
    )


def test_patience_counts_evaluations_without_a_better_one():
    policy = Patience(2)
    assert list(policy.after_evaluation(Progress(evaluations_since_best=1), 1.0)) == []
    (end,) = policy.after_evaluation(Progress(evaluations_since_best=2), 1.0)
    assert isinstance(end, Finish) and "2 evaluations" in end.reason


def test_checkpoints_are_due_every_n_updates_and_at_the_end_once():
    policy = Saving(4)
    due = [bool(list(policy.between_updates(Progress(update=u), done=u == 6))) for u in range(7)]
    assert [u for u, is_due in enumerate(due) if is_due] == [0, 4, 6]
    assert list(policy.between_updates(Progress(update=4, saved_update=4), done=False)) == []


def test_a_checkpoint_is_due_before_the_cooldown():
    policy = Saving(4, trunk=lambda: 7)
    due = [bool(list(policy.between_updates(Progress(update=u), done=False))) for u in range(9)]
    assert [u for u, is_due in enumerate(due) if is_due] == [0, 4, 7, 8]


def test_a_checkpoint_is_due_when_its_minutes_are_up():
    policy = Saving(1000, minutes=0.0)
    assert list(policy.between_updates(Progress(update=3), done=False)) == [Save()]


def test_a_signal_saves_first_and_names_the_command_that_resumes():
    policy = StopOnSignal(lambda: 2, lambda: 100, "mlxsched resume runs/a")
    save, abort = policy.between_updates(Progress(update=9), done=False)
    assert save == Save()
    assert isinstance(abort.error, Stopped) and abort.error.exit_code == 130
    assert "9 of 100 updates" in str(abort.error) and "mlxsched resume runs/a" in str(abort.error)
    saved = Progress(update=9, saved_update=9)
    assert [type(a) for a in policy.during_work(saved)] == [Abort]
    assert list(StopOnSignal(lambda: 0, lambda: 100, "").between_updates(saved, done=False)) == []


def test_a_spike_is_reported():
    progress = Progress(update=30, smoothed=1.2, last_was_spike=True)
    (report,) = Spikes().after_update(progress, made(loss=9.0))
    assert report.notice.code == "spike" and "9" in report.notice.message


@pytest.mark.parametrize(
    ("may_roll_back", "factor", "answer"), [(True, 1.0, RollBack), (True, 0.5, Abort), (False, 1.0, Abort)]
)
def test_updates_that_are_not_finite_roll_back_once_or_end_the_run(may_roll_back, factor, answer):
    policy = NonFinite(3, may_roll_back, lambda update: f"rows of {update}", "runs/a/adapters")
    bad = made(loss=math.nan, applied=False)
    assert list(policy.after_update(Progress(), made())) == []
    (report,) = policy.after_update(Progress(bad_in_a_row=2, peak_factor=factor), bad)
    assert isinstance(report, Report) and "rows of 7" in report.notice.message
    report, last = policy.after_update(Progress(bad_in_a_row=3, peak_factor=factor), bad)
    assert type(last) is answer
    if answer is Abort:
        assert isinstance(last.error, DivergedError) and "--learning-rate" in str(last.error)


def test_a_low_battery_saves_and_waits(monkeypatch):
    states = iter(power.Battery(15, on_ac=ac) for ac in (False, False, True))
    monkeypatch.setattr(host, "battery", lambda: next(states))
    wait = lambda *a, **k: power.wait_for_power(*a, **k, read=lambda: next(states), poll=0)  # noqa: E731
    monkeypatch.setattr(host, "wait_for_power", wait)
    monkeypatch.setattr(host, "BATTERY_EVERY", 0.0)
    policy = host.PauseOnBattery(20, lambda: False)
    save, report = policy.between_updates(Progress(update=7), done=False)
    assert save == Save() and report.notice.code == "paused" and "15%" in report.notice.message


def test_evaluate_is_the_answer_of_a_due_evaluation():
    assert list(Evaluation(lambda: 1).between_updates(Progress(update=3), done=False)) == [Evaluate()]
