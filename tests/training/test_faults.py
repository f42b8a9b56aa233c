"""Full disks, changed data, other processes, low batteries: each ends as documented."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import mlx.core as mx
import pytest

from mlxsched.errors import DivergedError, RunError, UsageError
from mlxsched.model.adapters import read_tensors
from mlxsched.model.evaluate import Evaluator
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import UpdateMade
from mlxsched.training.engine import Engine
from mlxsched.training.layout import LAYOUT
from mlxsched.training.recorded import refuse_changes
from mlxsched.training.run import create_run, execute
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


def test_a_run_with_micro_batches_of_other_shapes_is_named(session, tmp_path):
    """The version of the package does not say so: it is the same between two releases."""
    made = session()
    run = create_run(made, tmp_path / "run")
    versions = {key: value for key, value in run.info.versions.items() if "layout" not in key}
    run.update_info(versions=versions)
    with pytest.raises(UsageError, match=rf"layout of micro-batches \(none then, {LAYOUT} now\)"):
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
    "error",
    [
        MemoryError(),
        RuntimeError("[metal::malloc] Attempting to allocate 9 GB"),
        RuntimeError("[malloc] Unable to allocate 9000000000 bytes."),
        RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory (00000008:kIOGPU...)"),
        RuntimeError("cudaMallocAsync(&data, size) failed: out of memory"),
    ],
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


@pytest.mark.parametrize(
    "error", [ValueError("cannot allocate a port"), RuntimeError("the row 'allocation of funds' is broken")]
)
def test_other_errors_that_mention_allocation_are_not_taken_for_that(train, monkeypatch, error):
    def fails(self, batches, rate):
        raise error

    monkeypatch.setattr(Engine, "update", fails)
    with pytest.raises(type(error), match=str(error)):
        train()


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


def test_a_run_that_diverges_at_finite_values_fails_and_keeps_the_good_adapter(session, tmp_path):
    """Without clipping, a rate of 3 takes the loss far above that of guessing, and no number ever overflows."""
    made = session(learning_rate=3.0, max_grad_norm=0, warmup=0, schedule="constant", iters=40)
    run = create_run(made, tmp_path / "run")
    with pytest.raises(DivergedError, match="loss rose from .* --learning-rate") as failed:
        execute(made, run, lambda event: None)
    assert failed.value.exit_code == 1
    reopened = RunDirectory.open(run.path)
    assert reopened.info.status == "failed" and "diverged" in reopened.info.message
    assert reopened.info.best["update"] == 0  # the adapter that changes nothing
    assert not [r for r in run.read_metrics() if r.get("code") == "non_finite"]


def test_a_run_that_diverges_rolls_back_to_a_sane_state_at_half_the_rate(session, tmp_path):
    rates = [1e-3] * 7 + [30.0] + [1e-3] * 32
    made = session(on_divergence="halve", warmup=0, iters=20)
    seen = []

    def rate(update):
        seen.append(update)
        return rates[update] if seen.count(update) == 1 else 1e-3

    object.__setattr__(made, "schedule", rate)
    run = create_run(made, tmp_path / "run")
    progress = execute(made, run, lambda event: None)
    assert progress.peak_factor == 0.5 and progress.update == 20
    assert [r["code"] for r in run.read_metrics() if r["kind"] == "event"].count("rollback") == 1
    assert progress.evaluated_loss < progress.start_evaluation


def test_without_validation_rows_weights_that_compute_a_nan_never_become_the_adapter(
    session, tmp_path, excel_rows
):
    """A rate of 1e10 leaves finite weights, so the update is applied; the loss after it is not finite."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:16]) + "\n")
    made = session(data=str(folder), iters=20, save_every=1, max_bad_updates=2, max_grad_norm=0)
    rates = [1e-3] * 4 + [1e10] + [1e-3] * 15
    object.__setattr__(made, "schedule", rates.__getitem__)
    run = create_run(made, tmp_path / "run")
    with pytest.raises(DivergedError):
        execute(made, run, lambda event: None)
    good = read_tensors(run.checkpoints.path(4) / "adapters.safetensors")
    shipped = read_tensors(run.adapters)
    assert all((good[name] == value).all().item() for name, value in shipped.items())


def test_a_validation_row_with_a_nan_is_named_and_the_last_adapter_is_used(session, tmp_path, monkeypatch):
    made = session(iters=6)
    marked = made.dataset.valid[3].tokens[:-1]
    loss = Evaluator._loss_sum

    def poisoned(self, tree, *arrays):
        """The loss, which is not finite in a batch that holds the fourth row."""
        width = min(len(marked), arrays[0].shape[1])
        found = (arrays[0][:, :width] == mx.array(marked[:width])).all(axis=1).any() & (width == len(marked))
        return mx.where(found, mx.array(float("nan")), loss(self, tree, *arrays))

    monkeypatch.setattr(Evaluator, "_loss_sum", poisoned)
    run, events = create_run(made, tmp_path / "run"), []
    progress = execute(made, run, events.append)
    named = [e.message for e in events if getattr(e, "code", "") == "non_finite_validation"]
    assert (
        len(named) == 1
        and made.dataset.valid.place(3) in named[0]
        and "," not in named[0].split("because of")[1]
    )
    assert progress.best_update is None
    last = read_tensors(run.checkpoints.path(6) / "adapters.safetensors")
    assert all((last[name] == value).all().item() for name, value in read_tensors(run.adapters).items())
