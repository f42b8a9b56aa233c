"""What the checkpointer writes outside the run's directory."""

from __future__ import annotations

import os
import shutil
from functools import partial

import pytest

from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.model.adapters import adapter_config
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.checkpointer import copy_adapter
from mlxsched.training.run import execute
from mlxsched.training.session import prepare

OURS = adapter_config("tiny", "lora", 4, {"rank": 8})


def test_a_copy_of_the_adapter_leaves_every_other_file_of_the_folder(tmp_path):
    import mlx.core as mx

    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    (tmp_path / "run" / "adapters").mkdir()
    mx.save_safetensors(str(run.adapters / "adapters.safetensors"), {"lora_a": mx.ones((2, 2))})
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    for _ in range(2):  # the second copy replaces the first
        copy_adapter(run, OURS, folder)
        assert sorted(os.listdir(folder)) == [
            "adapter_config.json",
            "adapters.safetensors",
            "sub",
            "thesis.txt",
        ]
        assert (folder / "thesis.txt").read_text() == "precious"
    assert mx.load(str(folder / "adapters.safetensors"))["lora_a"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    (folder / "adapters.safetensors").write_text("somebody else's adapter")
    with pytest.raises(UsageError, match="not written by mlxsched"):
        copy_adapter(run, OURS, folder)
    assert (folder / "adapters.safetensors").read_text() == "somebody else's adapter"


def test_an_adapter_of_somebody_else_is_refused_before_anything_is_loaded(session, tmp_path):
    (tmp_path / "adapters.safetensors").write_text("somebody else's adapter")
    with pytest.raises(UsageError, match="not written by mlxsched"):
        session(adapter_path=str(tmp_path), model="/no/such/model")


def test_a_checkpoint_of_weights_that_are_not_finite_is_skipped(train, tmp_path):
    import mlx.core as mx

    whole, _, _ = train("whole", save_every=4)
    run, _, _ = train("damaged", save_every=4)
    last = run.checkpoints.path(12)
    weights = mx.load(str(last / "adapters.safetensors"))
    nothing = {key: mx.full(value.shape, mx.nan, value.dtype) for key, value in weights.items()}
    shutil.rmtree(last)
    run.checkpoints.write(12, partial(_fill, run.checkpoints.path(8), nothing))
    run.update_info(status="stopped")
    notes = []
    made = prepare(load_config(flags={**run.info.config}).config)
    execute(made, RunDirectory.open(run.path), notes.append, resume=True)
    assert any("Skipped checkpoint 12" in getattr(event, "message", "") for event in notes)
    file = "adapters/adapters.safetensors"
    assert (run.path / file).read_bytes() == (whole.path / file).read_bytes()


def _fill(source, weights, directory):
    import mlx.core as mx

    for name in ("optimizer.safetensors", "state.json"):
        shutil.copy(source / name, directory)
    mx.save_safetensors(str(directory / "adapters.safetensors"), weights)
