"""The end of a run, whatever its files hold."""

from __future__ import annotations

import json

from mlxsched.cli.results import results_json, show_results, verdict
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.training.progress import Progress


def test_a_number_that_no_float_can_hold_is_left_out(tmp_path, capsys):
    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    with run.lock():
        run.metrics.record(UpdateMade(0, 2.5, 1e-4, 0.75, 1000, 900, 500.0, 12.34, 2.0, 2.4))
    measured = {"loss": 0.5, "perplexity": 10**400, "exact_match": "all"}
    show_results(run, Progress(results={"before": 3, "after": measured}))
    shown = capsys.readouterr().out
    assert "validation loss" in shown and "0.5000" in shown
    assert "perplexity" not in shown and "exact match" not in shown


def recorded(path, losses):
    """A run of 30 updates with these validation losses, one every ten updates."""
    run = RunDirectory.create(path / "run", config={}, origins={}, plan={"updates": 30}, versions={})
    with run.lock():
        for update in range(30):
            if update % 10 == 0:
                run.metrics.record(Evaluated(update, losses[update // 10]))
            run.metrics.record(UpdateMade(update, 2.5 - 0.01 * update, 1e-4))
        run.metrics.record(Evaluated(30, losses[3]))
        run.update_info(status="finished", update=30)
    return run


def test_a_run_whose_validation_loss_rose_is_no_improvement(tmp_path, capsys):
    run = recorded(tmp_path, [2.0, 2.1, 2.2, 2.3])
    same = {"loss": 2.0}
    progress = Progress(update=30, best_update=0, best_loss=2.0, results={"before": same, "after": same})
    show_results(run, progress)
    shown = capsys.readouterr().out
    assert "training did not improve the model" in shown and "healthy" not in shown


def test_a_higher_test_loss_is_no_improvement(tmp_path):
    run = recorded(tmp_path, [2.0, 1.9, 1.8, 1.7])
    results = {"before": {"loss": 2.0, "test_loss": 2.0}, "after": {"loss": 1.7, "test_loss": 2.4}}
    found = verdict(run, Progress(update=30, best_update=30, best_loss=1.7, results=results))
    assert found[0] == "Verdict: training made the model worse: its test loss rose from 2.0000 to 2.4000."


def test_the_decisions_about_the_length_are_listed(tmp_path, capsys):
    run = recorded(tmp_path, [2.0, 1.9, 1.8, 1.7])
    revision = {"at": 8, "updates": 30, "schedule": None, "reason": "time budget: 30 updates fit into 0:20"}
    progress = Progress(update=30, revisions=[revision])
    show_results(run, progress)
    assert "At update 8: time budget: 30 updates fit into 0:20." in capsys.readouterr().out
    found = json.loads(json.dumps(results_json(run, progress)))
    assert found["decisions"] == [{"at": 8, "updates": 30, "reason": revision["reason"]}]
