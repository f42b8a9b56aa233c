"""Full disks, changed data, other processes, low batteries: each ends as documented."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from mlxsched.errors import DivergedError, RunError, UsageError
from mlxsched.model.adapters import read_tensors
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import UpdateMade
from mlxsched.training.engine import Engine
from mlxsched.training.run import create_run, execute, refuse_changes
from mlxsched.training.session import prepare


def test_a_full_disk_stops_the_run_and_leaves_what_was_good(session, tmp_path):
    made = session(iters=20)
    run = create_run(made, tmp_path / "run")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_the_disk(event):
        if isinstance(event, UpdateMade) and event.update == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(StorageError):
            execute(made, run, fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_tensors(run.adapters)
    reopened = RunDirectory.open(run.path)
    assert reopened.checkpoints.latest_good().update == 5
    execute(prepare(made.config, made.origins), reopened, lambda event: None, resume=True)
    assert RunDirectory.open(run.path).info.status == "finished"


def test_a_deleted_run_directory_stops_the_run_with_one_message(session, tmp_path):
    made = session(iters=20)
    run = create_run(made, tmp_path / "run")

    def delete(event):
        if isinstance(event, UpdateMade) and event.update == 2:
            subprocess.run(["rm", "-r", str(run.path)], check=True)

    with pytest.raises(StorageError, match="run"):
        execute(made, run, delete)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"length_window": 4}, r"length_window \(1 then, 4 now\)"),
        ({"batch_size": 2}, r"rows of an update \(4 then, 2 now\)"),
    ],
)
def test_another_order_of_rows_is_named_and_refused_without_force(session, tmp_path, change, told):
    run = create_run(session(), tmp_path / "run")
    assert refuse_changes(run, session(), force=False) == []
    with pytest.raises(UsageError, match=told):
        refuse_changes(run, session(**change), force=False)
    assert len(refuse_changes(run, session(**change), force=True)) == 1


def test_changed_data_is_named_and_refused_without_force(session, tmp_path, excel_rows):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:16]) + "\n")
    made = session(data=str(folder))
    run = create_run(made, tmp_path / "run")
    assert refuse_changes(run, prepare(made.config, made.origins), force=False) == []
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:17]) + "\n")
    changed = prepare(made.config, made.origins)
    with pytest.raises(UsageError, match="content of the data"):
        refuse_changes(run, changed, force=False)
    assert len(refuse_changes(run, changed, force=True)) == 1


def test_another_library_version_is_named(session, tmp_path):
    made = session()
    run = create_run(made, tmp_path / "run")
    record = json.loads((run.path / "run.json").read_text())
    record["versions"]["mlx"] = "0.1.0"
    (run.path / "run.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"mlx \(0\.1\.0 then"):
        refuse_changes(RunDirectory.open(run.path), made, force=False)


def test_a_run_in_use_is_refused(session, tmp_path):
    made = session()
    run = create_run(made, tmp_path / "run")
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from mlxsched.runs.directory import RunDirectory\n"
            f"with RunDirectory.open(Path({str(run.path)!r})).lock(): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=str(holder.pid)):
            execute(made, run, lambda event: None)
    finally:
        holder.kill()
        holder.wait()
    execute(made, run, lambda event: None)  # the lock died with its owner


def test_a_damaged_checkpoint_is_passed_over(train, session, tmp_path):
    whole, _, _ = train("whole")
    made = session()
    run = create_run(made, tmp_path / "run")

    def stop(event):
        if isinstance(event, UpdateMade) and event.update == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(made, run, stop)
    damaged = run.checkpoints.path(10) / "optimizer.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (run.path / "checkpoints" / "000011").mkdir()  # a half-written one
    notes = []
    execute(prepare(made.config, made.origins), RunDirectory.open(run.path), notes.append, resume=True)
    told = [n.message for n in notes if getattr(n, "code", "") == "note"]
    assert len(told) == 2
    # Recorded after the records have been cut back to the checkpoint, or they would be cut off too.
    assert [r["message"] for r in run.read_metrics() if r.get("code") == "note"] == told
    final = "adapters/adapters.safetensors"
    assert (run.path / final).read_bytes() == (whole.path / final).read_bytes()


@pytest.mark.parametrize(
    "error", [RuntimeError("[metal::malloc] Attempting to allocate 9 GB"), MemoryError()]
)
def test_out_of_memory_stops_with_advice(session, tmp_path, monkeypatch, error):
    made = session()
    run = create_run(made, tmp_path / "run")
    update = Engine.update

    def run_out(self, batches, rate):
        if batches.update == 3:
            raise error
        return update(self, batches, rate)

    monkeypatch.setattr(Engine, "update", run_out)
    with pytest.raises(RunError, match="--micro-batch-tokens"):
        execute(made, run, lambda event: None)
    assert RunDirectory.open(run.path).info.status == "failed"


def test_a_spike_is_an_event(session, tmp_path):
    made = session(iters=30, learning_rate=1e-6, schedule="constant", warmup=0)
    rates = [1e-6] * 24 + [30.0] + [1e-6] * 5
    object.__setattr__(made, "schedule", rates.__getitem__)
    run = create_run(made, tmp_path / "run")
    with pytest.raises(
        DivergedError, match="training loss rose"
    ):  # the rate of 30 left nothing that was learned
        execute(made, run, lambda event: None)
    spikes = [r for r in run.read_metrics() if r["kind"] == "event" and r["code"] == "spike"]
    assert spikes and spikes[0]["update"] == 25
