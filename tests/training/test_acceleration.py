"""Whole runs with the optimizations against `--no-fast`, and resumed ones against uninterrupted ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mlxsched.model.fast.prefix_activations import PrefixActivations
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice


@pytest.fixture
def small_data(excel_rows, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:32]) + "\n")
    (folder / "valid.jsonl").write_text("\n".join(excel_rows[32:48]) + "\n")
    return str(folder)


def records(run, kind):
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


def losses(run, kind="train"):
    return np.array([record["loss"] for record in records(run, kind)])


def test_a_hundred_updates_draw_the_same_curve(train, small_data, monkeypatch):
    asked, batch = [], PrefixActivations.batch
    monkeypatch.setattr(PrefixActivations, "batch", lambda self, *a: asked.append(1) or batch(self, *a))
    flags = {"data": small_data, "iters": 100, "num_layers": 2, "steps_per_eval": 25, "val_batches": -1}
    flags |= {"learning_rate": 1e-3, "label_smoothing": 0.05, "z_loss": 1e-4}
    fast, _, events = train("fast", **flags)
    assert len(asked) > 100
    plain, _, _ = train("plain", fast=False, **flags)
    assert not [event for event in events if isinstance(event, Notice)]  # all are in use
    assert losses(plain)[-10:].mean() < 0.9 * losses(plain)[:10].mean()
    np.testing.assert_allclose(losses(fast)[:8], losses(plain)[:8], rtol=1e-5)
    np.testing.assert_allclose(losses(fast), losses(plain), rtol=2e-3)
    np.testing.assert_allclose(losses(fast, "eval"), losses(plain, "eval"), rtol=1e-3)


@pytest.mark.parametrize(
    "extra", [{}, {"prefix_cache": 1000}, {"lora_parameters.dropout": 0.2, "grad_checkpoint": True}]
)
def test_resume_with_cached_activations_is_bit_identical(train, interrupted, resume, small_data, extra):
    flags = {"data": small_data, "num_layers": 2, "iters": 14, **extra}
    whole, _, _ = train("whole", **flags)
    made, path = interrupted(
        "parts", 12, **flags
    )  # into the second epoch, two updates beyond the checkpoint at 10
    parts, _ = resume(made, path)
    assert (losses(parts) == losses(whole)).all()
    assert (losses(parts, "eval") == losses(whole, "eval")).all()
    name = "adapters/adapters.safetensors"
    assert (path / name).read_bytes() == (whole.path / name).read_bytes()
    assert not list(path.glob(".prefix*"))


def test_an_optimization_that_is_not_used_is_reported(train, small_data, monkeypatch):
    """A head that the self-check can't use: every run still trains, on the plain path."""
    monkeypatch.setattr("mlxsched.model.fast.head._PROJECTIONS", ())
    monkeypatch.setattr("mlxsched.model.fast.head._EMBEDDINGS", ())
    run, _, events = train(data=small_data, iters=3)
    notes = [event.message for event in events if isinstance(event, Notice) and event.code == "note"]
    assert any(note.startswith("loss only at targets: not used") for note in notes)
    assert np.isfinite(losses(run)).all()


def recorded_notes(run):
    return [record["message"] for record in records(run, "event") if record["code"] == "note"]


def test_notes_are_recorded_once_also_after_a_resume(train, interrupted, resume, small_data, monkeypatch):
    monkeypatch.setattr("mlxsched.model.fast.head._PROJECTIONS", ())
    monkeypatch.setattr("mlxsched.model.fast.head._EMBEDDINGS", ())
    flags = {"data": small_data, "iters": 6, "save_every": 3}
    whole, _, events = train("whole", **flags)
    told = [event.message for event in events if isinstance(event, Notice)]
    assert told and recorded_notes(whole) == told

    made, path = interrupted("parts", 4, **flags)
    run, _ = resume(made, path)
    assert recorded_notes(run) == told


def test_run_json_says_which_optimizations_were_used(train, small_data):
    flags = {"data": small_data, "num_layers": 2, "iters": 9, "val_batches": 1}
    fast, _, _ = train("fast", **flags)
    taken = RunDirectory.open(fast.path).info.short_cuts
    assert taken["training"].pop("chunk") >= 64
    assert taken["training"] == {
        "loss_at_targets": True,
        "frozen_states": True,
        "checkpoint": 0,
        "attention_blocks": 128,
        "compiled": True,
        "packed": None,
        "shared_prefix": False,
        "fused_cross_entropy": False,
        "fused_delta": False,
    }
    once, _, _ = train("once", **{**flags, "iters": 1, "grad_checkpoint": True, "packing": True})
    taken = RunDirectory.open(once.path).info.short_cuts
    assert not taken["training"]["frozen_states"]  # no row comes again
    assert taken["training"]["checkpoint"] == 1
    assert taken["training"]["attention_blocks"] == 64
    assert taken["training"]["packed"] > 0
    assert taken["validation"]["packed"] is None
    plain, _, _ = train("plain", fast=False, **{**flags, "iters": 1})
    taken = RunDirectory.open(plain.path).info.short_cuts
    assert not any([*taken["training"].values(), *taken["validation"].values()])
