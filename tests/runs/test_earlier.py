"""How a run ended before it went on is kept, as a run that can be read."""

from __future__ import annotations

import os

import pytest

from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.earlier import keep_end
from mlxsched.runs.events import UpdateMade
from mlxsched.runs.removal import remove_run
from mlxsched.runs.store import runs_below, stored_config


@pytest.fixture
def run(tmp_path):
    (tmp_path / "data").mkdir()
    place = {"path": "/gone", "from_run": "../data"}
    made = RunDirectory.create(
        tmp_path / "run", config={"data": "/gone"}, origins={}, plan={}, versions={}, paths={"data": place}
    )
    for name in ("adapters", "adapters_final"):
        (made.path / name).mkdir()
        (made.path / name / "adapters.safetensors").write_text(name)
    with made.lock():
        made.metrics.record(UpdateMade(0, loss=1.0, lr=1e-3))
        made.update_info(status="stopped", update=1, best={"update": 1, "loss": 0.5})
    return made


def test_the_copy_is_a_run_with_records_adapters_and_results(run):
    assert keep_end(run) == "earlier/000001"
    kept = RunDirectory.open(run.path / "earlier/000001")
    assert kept.info.status == "finished" and kept.info.best == {"update": 1, "loss": 0.5}
    assert [record["update"] for record in kept.read_metrics()] == [0]
    for name in ("adapters", "adapters_final"):
        assert (kept.path / name / "adapters.safetensors").read_text() == name
    assert os.path.samefile(stored_config(kept, need=("data",))["data"], run.path.parent / "data")
    assert [found.path for found in runs_below(run.path.parent)] == [run.path]


def test_a_second_call_finds_the_first_copy_and_another_end_gets_its_own(run):
    assert keep_end(run) == keep_end(run) == "earlier/000001"
    (run.adapters / "adapters.safetensors").write_text("another")
    assert keep_end(run) == "earlier/000001-2"
    kept = run.path / "earlier/000001/adapters/adapters.safetensors"
    assert kept.read_text() == "adapters"


def test_a_run_is_removed_with_its_earlier_ends_and_nothing_of_the_users(run):
    keep_end(run)
    (run.path / "earlier" / "000001" / "mine.txt").write_text("mine")
    (run.path / "request.json").write_text("{}")
    left = remove_run(run.path)
    assert [path.name for path in left] == ["mine.txt"]
