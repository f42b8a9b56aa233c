"""What checkpoints cost a run: the time of one save compared with that of the updates between two saves.

    python benchmarks/checkpoint_cost.py [--layers 24] [--updates 2] [--saves 5]

The model has the shape of Qwen2.5-0.5B and random weights. LoRA has rank 8 on all layers, the optimizer is AdamW, and an
update has 8 rows of 128 tokens. Saves and updates alternate in one process; the medians are compared at the default
cadence of one checkpoint every 100 updates.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from mlxsched.platform.blas import preload

preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402
from mlx_lm.models import qwen2  # noqa: E402

from mlxsched.config import RunConfig  # noqa: E402
from mlxsched.model import adapters  # noqa: E402
from mlxsched.model.loss import weighted_loss  # noqa: E402
from mlxsched.model.trees import flatten, n_bytes  # noqa: E402
from mlxsched.runs.directory import RunDirectory  # noqa: E402
from mlxsched.training.checkpointer import Checkpointer  # noqa: E402
from mlxsched.training.optimizers import group_tensors  # noqa: E402
from mlxsched.training.progress import Progress  # noqa: E402
from mlxsched.training.step import UpdateStep  # noqa: E402

ROWS, LENGTH = 8, 128


def half_billion(layers: int) -> qwen2.Model:
    """A model with the shape of Qwen2.5-0.5B and random weights."""
    return qwen2.Model(
        qwen2.ModelArgs(
            model_type="qwen2",
            hidden_size=896,
            num_hidden_layers=layers,
            intermediate_size=4864,
            num_attention_heads=14,
            num_key_value_heads=2,
            rms_norm_eps=1e-6,
            vocab_size=151936,
            tie_word_embeddings=True,
        )
    )


def main() -> None:
    """Print the time of an update and of a save, and the share of the run that saves take."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--updates", type=int, default=2)
    parser.add_argument("--saves", type=int, default=5)
    arguments = parser.parse_args()

    model = half_billion(arguments.layers)
    adapters.attach(model, "lora", -1, {"rank": 8, "scale": 20.0, "dropout": 0.0}, seed=0)
    optimizer = group_tensors(flatten(model.trainable_parameters()), "adamw", {})
    packed = optimizer.pack(flatten(model.trainable_parameters()))
    state = optimizer.init(packed)
    mx.eval(model.parameters(), packed, state)
    step = UpdateStep(model, optimizer, weighted_loss, max_grad_norm=1.0)
    tokens = np.random.default_rng(0).integers(0, 151936, (ROWS, LENGTH + 1)).astype(np.int32)
    weights = np.full((ROWS, LENGTH), 1 / (ROWS * LENGTH), np.float32)

    updates, saves = [], []
    with tempfile.TemporaryDirectory() as directory:
        run = RunDirectory.create(
            Path(directory) / "run", config=RunConfig().to_dict(), origins={}, plan={}, versions={}
        )
        with run.lock():
            checkpointer = Checkpointer(run, optimizer, {}, keep_last=3)
            for count in range(max(arguments.updates, arguments.saves)):
                if count < arguments.updates:
                    started = time.perf_counter()
                    for row in range(0, ROWS, 2):
                        part = slice(row, row + 2)
                        sums = step.zeros(packed) if row == 0 else sums  # noqa: F821  set at row 0
                        sums = step.add(packed, sums, tokens[part, :-1], tokens[part, 1:], weights[part])
                        mx.eval(sums)
                    packed, state, _ = step.apply(packed, state, sums, 1e-4)
                    mx.eval(packed, state)
                    updates.append(time.perf_counter() - started)
                if count < arguments.saves:
                    started = time.perf_counter()
                    checkpointer.save(packed, state, Progress(update=count))
                    saves.append(time.perf_counter() - started)
    update, save = statistics.median(updates), statistics.median(saves)
    cadence = RunConfig().save_every
    print(f"checkpoint: {3 * n_bytes(packed) / 1e6:.1f} MB, {save:.3f} s (median of {len(saves)})")
    print(f"update of {ROWS * LENGTH} tokens: {update:.2f} s (median of {len(updates)})")
    print(f"one checkpoint every {cadence} updates costs {save / (cadence * update):.3%} of the run")
    print(f"that is under 2% if an update takes longer than {save / (cadence * 0.02):.3f} s")


if __name__ == "__main__":
    main()
