"""Whole runs on states that earlier runs left: the same to the last bit, also after a kill -9."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mlxsched.model.fast import prefix_activations as states_module
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_loader, make_pace
from mlxsched.training.run import create_run, execute, sinks_of, start

FLAGS = {"num_layers": 2, "prefix_cache": 1000}  # bytes: memory holds nothing


@pytest.fixture
def data(excel_rows, tmp_path):
    """Make a data set of so many rows."""

    def make(rows=32):
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "train.jsonl").write_text("\n".join(excel_rows[:rows]) + "\n")
        (folder / "valid.jsonl").write_text("\n".join(excel_rows[rows : rows + 16]) + "\n")
        return str(folder)

    return make


@pytest.fixture
def shared(session, tmp_path):
    """A session whose states later runs find; by default all runs of a test have one folder for them."""

    def make(folder="cache", **flags):
        return replace(session(**FLAGS | flags), cache=tmp_path / folder if folder else None)

    return make


@pytest.fixture
def traced(monkeypatch):
    """How often the layers below the boundary were traced to fill a store: never, where all states are there."""
    calls, original = [], states_module.boundary_input
    monkeypatch.setattr(states_module, "boundary_input", lambda *a: calls.append(1) or original(*a))
    return calls


def run_to_the_end(session, path):
    gc.collect()
    run, events = create_run(session, path), []
    execute(session, run, events.append)
    notes = [event.message for event in events if isinstance(event, Notice) and event.code == "note"]
    return run, notes


def losses(run):
    records = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if "loss" in record]


def events(run):
    return [record for record in run.read_metrics() if record["kind"] == "event"]


def adapter(run):
    return (run.path / "adapters" / "adapters.safetensors").read_bytes()


def test_a_run_on_the_states_of_another_is_the_same_to_the_last_bit(shared, data, tmp_path, traced):
    flags = {"data": data(), "iters": 16}
    alone, notes = run_to_the_end(shared(None, **flags), tmp_path / "alone")
    assert traced and notes == []
    first, notes = run_to_the_end(shared(**flags), tmp_path / "first")
    assert notes == []
    traced.clear()
    second, notes = run_to_the_end(shared(**flags), tmp_path / "second")
    assert [note for note in notes if "100% of" in note] == notes and len(notes) == 2  # training, validation
    assert not traced
    assert losses(alone) == losses(first) == losses(second)
    assert adapter(alone) == adapter(first) == adapter(second)


def test_other_rates_and_ranks_use_them_too(shared, data, tmp_path, traced):
    rows = data()
    run_to_the_end(shared(data=rows, iters=16), tmp_path / "first")
    traced.clear()
    other = {"learning_rate": 1e-3, "lora_parameters.rank": 4}
    run_to_the_end(shared(data=rows, iters=10, **other), tmp_path / "second")
    assert not traced


def test_an_update_of_the_first_epoch_computes_its_own_rows_only(session, monkeypatch):
    made = session(num_layers=2, iters=2000)
    acceleration = accelerate(made, None, lambda note: None)
    activations, loader = (
        acceleration.training.activations,
        make_loader(made, acceleration.training, make_pace(made)),
    )
    computed, shapes, collate = [], [], states_module.collate
    compute = activations._compute
    monkeypatch.setattr(
        states_module,
        "collate",
        lambda rows, group, grid: computed.append(group) or collate(rows, group, grid),
    )
    activations._compute = lambda inputs: shapes.append(inputs.shape) or compute(inputs)
    for update in range(3):
        batches = loader(update)
        assert sorted(np.concatenate(computed).tolist()) == sorted(batches.rows.tolist())
        # in the shapes of the micro-batches: the same work as without a store
        assert shapes == [arrays[0].shape for arrays in batches.arrays]
        computed.clear(), shapes.clear()
    loader(1)
    assert computed == []


def test_a_resume_goes_on_with_what_was_there(shared, data, tmp_path, traced):
    flags = {"data": data(), "iters": 14}
    whole, _ = run_to_the_end(shared(None, **flags), tmp_path / "whole")
    made = shared(**flags)
    run = create_run(made, tmp_path / "parts")
    with run.lock():
        loop, _ = start(made, run, sinks_of(run))
        for _ in range(12):  # into the second epoch, two updates beyond the checkpoint at 10
            loop.step()
    del loop
    gc.collect()
    traced.clear()
    execute(shared(**flags), RunDirectory.open(run.path), lambda event: None, resume=True)
    assert not traced
    assert losses(run) == losses(whole)
    assert adapter(run) == adapter(whole)
    # What the cache holds by now is no record of the run's: one more line, and a resume would not be exact.
    assert events(run) == events(whole) == []


def test_after_kill_9_in_the_middle_of_filling_the_next_run_is_right(shared, data, tmp_path):
    flags = {"data": data(800), "iters": 250, "batch_size": 4, "val_batches": 0}  # more than one epoch
    environment = os.environ | {"MLXSCHED_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(_train(tmp_path, flags), env=environment, stderr=subprocess.DEVNULL) as child:
        try:
            marks, notes = _wait_for_marks(tmp_path / "cache" / "prefix", child), []
            child.send_signal(signal.SIGSTOP)  # it holds the lock all the same
            _first_losses(shared(**flags), tmp_path / "beside", notes, count=1)
        finally:
            child.kill()
    assert "another process is writing" in notes[0]
    filled = np.count_nonzero(marks)
    assert 0 < filled < len(marks)
    notes.clear()
    after = _first_losses(shared(**flags), tmp_path / "after", notes)
    assert f"{filled / len(marks):.0%} of" in notes[0] and len(notes) == 1
    assert after == _first_losses(shared(None, **flags), tmp_path / "alone", [])


def _train(tmp_path, flags):
    flags = FLAGS | flags | {"run_dir": tmp_path / "killed"}
    given = [word for name, value in flags.items() for word in ("--" + name.replace("_", "-"), str(value))]
    return [sys.executable, "-m", "mlxsched", "train", "--no-test", "--plain", *given]


def _wait_for_marks(folder, child):
    """The marks of the first states in ``folder``, as soon as there are some."""
    until = time.monotonic() + 180
    while time.monotonic() < until and child.poll() is None:
        for header in folder.glob("*/header.json"):
            rows, states = json.loads(header.read_text())["rows"], header.with_name("states")
            if states.stat().st_size < 8 * rows:
                continue  # the header comes first
            marks = np.memmap(states, np.uint64, "r", shape=(rows,))
            if np.count_nonzero(marks) > 20:
                return marks
        time.sleep(0.02)
    raise AssertionError(f"nothing was filled; the child ended with {child.poll()}")


def _first_losses(session, path, notes, count=20):
    """The losses of the first updates, without the rest of the run."""
    gc.collect()
    run, found = create_run(session, path), []

    def see(event):
        if isinstance(event, Notice):
            notes.append(event.message)
        elif event.kind == "train":
            found.append(event.loss)

    with run.lock():
        loop, _ = start(session, run, sinks_of(run, see))
        for _ in range(count):
            loop.step()
    return found
