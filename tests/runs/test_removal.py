"""Removing a run removes what mlxsched wrote, and nothing else."""

from __future__ import annotations

import pytest

from mlxsched.errors import UsageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.removal import remove_run


@pytest.fixture
def run(tmp_path):
    run = RunDirectory.create(tmp_path / "one", config={}, origins={}, plan={}, versions={})
    with run.lock():
        run.metrics.write({"kind": "event", "update": 0, "code": "note", "message": "a"})
        run.write_checkpoint(0, lambda path: (path / "state.json").write_text("{}"))
        run.write_adapter(lambda path: (path / "adapters.safetensors").write_bytes(b"1"))
    return run


def test_a_run_is_removed_whole(run):
    assert remove_run(run.path) == []
    assert not run.path.exists()


@pytest.mark.parametrize(
    "mine",
    ["notes.txt", "adapters/README.md", "checkpoints/000000/mine.bin", "plots/state.json", ".hidden/a"],
)
def test_a_file_of_the_users_stays_and_is_named(run, mine):
    path = run.path / mine
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    assert remove_run(run.path) == [path]
    assert [found for found in run.path.rglob("*") if found.is_file()] == [path]


def test_what_a_link_leads_to_stays(run, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "state.json").write_text("mine")
    (run.path / "checkpoints" / "000007").symlink_to(outside)
    remove_run(run.path)
    assert (outside / "state.json").exists()


def test_a_run_in_use_is_refused(run):
    with run.lock(), pytest.raises(UsageError, match="is in use by"):
        remove_run(run.path)
    assert (run.path / "metrics.jsonl").exists()


def test_a_directory_without_a_run_is_refused(tmp_path):
    (tmp_path / "adapters").mkdir()
    with pytest.raises(UsageError, match="There is no run in"):
        remove_run(tmp_path)
