"""What a list of runs shows, also of damaged, killed and running ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlxsched.errors import UsageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.runs.store import runs_below
from mlxsched.runs.summary import RunSummary, sort_runs, summarize

PLAN = {"updates": 30, "peak": 2e-4, "schedule": {"name": "warmup_linear", "peak": 2e-4}}


@pytest.fixture
def make(tmp_path):
    def made(name, status="finished", losses=(), **info):
        run = RunDirectory.create(tmp_path / name, config={}, origins={}, plan=PLAN, versions={})
        with run.lock():
            for update, loss in enumerate(losses):
                run.metrics.record(UpdateMade(update, loss, 1e-4, seconds=2.0))
            run.update_info(status=status, **info)
        return run

    return made


def only(root):
    (found,) = runs_below(root)
    return summarize(found)


def test_a_finished_run(make, tmp_path):
    run = make("one", losses=[3.0, 2.0], update=2, best={"update": 2, "loss": 1.5})
    with run.lock():
        run.metrics.record(Evaluated(2, 1.5, seconds=0.5))
    summary = only(tmp_path)
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    expected = RunSummary(
        "one", run.path, "finished", 2, 30, 1.5, "warmup_linear", 2e-4, 4.5, size, run.info.created
    )
    assert summary == expected


def test_the_length_is_that_of_the_last_revision(make, tmp_path):
    make("one", losses=[3.0] * 12, update=12, length=12)
    assert only(tmp_path).planned == 12


def test_without_a_validation_loss_the_last_training_losses_count(make, tmp_path):
    make("one", losses=[9.0] * 10 + [float(value) for value in range(20)])
    assert only(tmp_path).loss == pytest.approx(9.5)


def test_a_killed_run_is_interrupted_and_a_locked_one_is_running(make, tmp_path):
    run = make("one", status="running", losses=[3.0, 2.0])
    assert only(tmp_path).status == "interrupted"
    assert only(tmp_path).updates == 2  # although run.json was written before the first one
    with run.lock():
        assert only(tmp_path).status == "running"


@pytest.mark.parametrize(
    ("file", "content", "status"),
    [("run.json", "{", "unreadable"), ("metrics.jsonl", 2 * '{"kind": "none", "update": 1}\n', "finished")],
)
def test_damage_is_reported_and_not_raised(make, tmp_path, file, content, status):
    (make("one").path / file).write_text(content)
    summary = only(tmp_path)
    assert summary.status == status
    assert file in summary.problem


def test_a_strangers_values_do_not_matter(make, tmp_path):
    path = make("one").path / "run.json"
    info = json.loads(path.read_text())
    info |= {"plan": {"updates": "many", "peak": 10**400, "schedule": [1]}, "best": {"loss": True}}
    path.write_text(json.dumps(info))
    summary = only(tmp_path)
    assert (summary.planned, summary.peak, summary.schedule, summary.loss) == (None,) * 4


def test_runs_are_sorted_and_unknown_values_come_last():
    runs = [
        RunSummary(name, Path(name), "finished", loss=loss)
        for name, loss in zip("abc", (None, 0.5, 0.3), strict=True)
    ]
    assert [run.name for run in sort_runs(runs, "loss")] == ["c", "b", "a"]
    assert [run.name for run in sort_runs(runs, "loss", reverse=True)] == ["b", "c", "a"]
    with pytest.raises(UsageError, match=r"'speed'\. Choose one of: created"):
        sort_runs(runs, "speed")
