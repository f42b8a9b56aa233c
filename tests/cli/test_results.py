"""The end of a run, whatever its files hold."""

from __future__ import annotations

import json

import pytest

from mlxsched.analysis.diagnosis import diagnose
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.verdict import failure_of
from mlxsched.cli.results import Took, results_json, show_results, verdict
from mlxsched.config import load_config
from mlxsched.planning.settings import settings_findings
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.runs.recording import read_recording
from mlxsched.runs.store import runs_below
from mlxsched.runs.summary import summarize
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


@pytest.mark.parametrize(
    ("systems", "said"),
    [
        (["Answer in a word."] * 3, "rows --system 'Answer in a word.' --prompt"),
        (["Answer. " * 50] * 3, "rows --system TEXT --prompt"),
        (["One.", "Two."], None),
        ([None, None], None),
    ],
)
def test_the_system_prompt_of_the_rows_is_in_the_next_commands(tmp_path, capsys, systems, said):
    rows = [
        {
            "messages": [
                *([{"role": "system", "content": text}] if text else []),
                {"role": "user", "content": "hi"},
            ]
        }
        for text in systems
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    for source in (data, tmp_path / "gone.jsonl"):
        config = {"data": str(source)}
        run = RunDirectory.create(tmp_path / source.stem, config=config, origins={}, plan={}, versions={})
        with run.lock():
            run.metrics.record(UpdateMade(0, 2.5, 1e-4))
        show_results(run, Progress())
        shown = capsys.readouterr().out
        assert (said in shown) if said and source is data else ("--system" not in shown)


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
    worse = "training made the model worse: its validation loss rose from 2.0000 to 2.3000, and the adapter is that of"
    assert f"Verdict: {worse} update 0.\n" in shown  # the training loss fell, so a lower rate is no fix
    assert "mlxsched diagnose" in shown and "mlxsched fuse" not in shown and "mlxsched generate" not in shown


@pytest.mark.parametrize(("end", "said"), [(9.9, "rose from 4.49"), (4.5, "did not improve")])
def test_a_short_run_that_diverged_names_the_rate_of_the_plan_s_warning(tmp_path, end, said):
    flags = {"preset": "laptop", "flags": {"learning_rate": 0.5}}
    loaded = load_config(**flags)
    (warned,) = settings_findings(loaded.config, loaded.origins, 0.5)
    run = RunDirectory.create(
        tmp_path / "run", config=loaded.config.to_dict(), origins={}, plan={"updates": 8}, versions={}
    )
    with run.lock():
        run.metrics.record(Evaluated(0, 4.49))
        for update in range(8):
            run.metrics.record(UpdateMade(update, 4.5 + 0.7 * update, 0.5 * update / 7))
        run.metrics.record(Evaluated(8, end))
        run.update_info(status="finished", update=8, best={"update": 0, "loss": 4.49})
    (line,) = verdict(run, Progress(update=8, best_update=0, best_loss=4.49))
    assert said in line and ("--learning-rate 5e-5" in line) == (end > 9)
    assert "--learning-rate 5e-5," in warned.fix
    found = diagnose(run_history(run))
    assert (
        failure_of(run.info, "finished", read_recording(run.path), found) in line
    )  # of the report and of watch


@pytest.mark.parametrize(
    ("took", "results", "said"),
    [
        (Took(61.0), {"after": {"test_loss": 1.5}}, "; 1:01 in all, with loading and the test rows"),
        (Took(61.0), {"after": {"loss": 1.5}}, "; 1:01 in all, with loading"),
        (Took(61.0, resumed=True), {}, "; 1:01 since the resume"),
        (Took(), {}, ""),
    ],
)
def test_the_training_time_equals_the_one_in_the_list_of_runs(tmp_path, capsys, took, results, said):
    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    with run.lock():
        run.metrics.record(UpdateMade(0, 2.5, 1e-4, seconds=20.0))
        run.metrics.record(Evaluated(1, 2.0, seconds=15.0))
    progress = Progress(update=1, tokens=7, seconds=20.0, results=results)
    show_results(run, progress, took)
    assert f"1 update, 7 tokens; training 0:35{said}\n" in capsys.readouterr().out
    (listed,) = (summarize(stored) for stored in runs_below(tmp_path))
    found = results_json(run, progress, took)
    assert found["training_seconds"] == listed.seconds == 35.0
    assert (found["seconds"], found["total_seconds"]) == (20.0, took.seconds)


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


def test_of_the_decisions_of_a_time_budget_only_the_last_is_listed(tmp_path, capsys):
    run = recorded(tmp_path, [2.0, 1.9, 1.8, 1.7])
    last = "time budget: 1,030 updates instead of 1,031 fit"
    reasons = ["time budget: 40", "cooldown in 5 updates", "time budget: 31", last]
    made = [{"at": 8 + i, "updates": 30, "schedule": None, "reason": one} for i, one in enumerate(reasons)]
    progress = Progress(update=30, revisions=made)
    show_results(run, progress)
    shown = [line for line in capsys.readouterr().out.splitlines() if line.startswith("At update")]
    assert shown == ["At update 9: cooldown in 5 updates.", "At update 11: time budget: 1,030 updates fit."]
    assert len(results_json(run, progress)["decisions"]) == 4
