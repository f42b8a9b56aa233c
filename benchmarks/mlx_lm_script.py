"""The same LoRA by our trainer, by a script of thirty lines around mlx-lm's, and by mlx-lm's loop unmodified.

    python benchmarks/mlx_lm_script.py [--updates 120] [--seeds 0 1 2]

All train the bundled model on the bundled rows with prompts masked, in batches of 8, at the same peak, with a warmup
of a tenth and a linear decay to zero. The script is `examples/mlx_lm_trainer.py`. The unmodified loop has mlx-lm's loss, batches
and schedule, and Adam as mlx-lm calls it. The loss is that of all validation rows, by the same code for all.
"""

# ruff: noqa: E402  the BLAS comes before mlx

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from mlxsched.platform.blas import preload

preload()  # before mlx, for mlx-lm's side too

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.tuner import trainer
from mlx_lm.tuner.utils import build_schedule
from mlx_lm.utils import save_config

from mlxsched.config import load_config
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import mlx_lm_trainer as script
import what_the_plain_loop_wastes as waste

PEAK, BATCH = 1e-3, 8


def our_trainer(updates: int, folder: Path, seed: int) -> Path:
    """`mlxsched train` with the settings of the script."""
    flags: dict[str, object] = {
        "iters": updates, "batch_size": BATCH, "learning_rate": PEAK, "warmup": 0.1, "max_grad_norm": 0, "seed": seed,
        "optimizer": "adamw", "lora_parameters.rank": script.LORA["rank"], "val_batches": 1, "steps_per_eval": updates,
    }  # fmt: skip
    loaded = load_config(flags=flags)
    session = prepare(loaded.config, loaded.origins)
    execute(session, create_run(session, folder / "run"), lambda _: None)
    return folder / "run" / "adapters"


def thirty_lines(updates: int, folder: Path, seed: int) -> Path:
    """The example: mlx-lm's `train` with our schedule, loss, batches and callback."""
    script.main(updates, folder, seed)
    return folder


def unmodified_corrected(updates: int, folder: Path, seed: int) -> Path:
    """The same with Adam's bias correction, which `mlx_lm.lora` leaves out by default."""
    return unmodified(updates, folder, seed, bias_correction=True)


def unmodified(updates: int, folder: Path, seed: int, *, bias_correction: bool = False) -> Path:
    """mlx-lm's `train` as `mlx_lm.lora` calls it, with the schedule that its YAML would name."""
    model, tokenizer = script.load(str(script.model_path("tiny")))
    rows, _, _ = split(tokenizer)
    mx.random.seed(seed)
    np.random.seed(seed)
    model.freeze()
    script.linear_to_lora_layers(model, len(model.layers), script.LORA)
    layers = {"fine_tune_type": "lora", "num_layers": len(model.layers), "lora_parameters": script.LORA}
    save_config(layers, folder / "adapter_config.json")
    warmup = updates // 10
    schedule = {"name": "linear_schedule", "warmup": warmup, "arguments": [PEAK, 0.0, updates - warmup]}
    arguments = script.TrainingArgs(
        BATCH, updates, steps_per_report=updates, adapter_file=str(folder / "adapters.safetensors")
    )
    optimizer = optim.AdamW(build_schedule(schedule), bias_correction=bias_correction)
    trainer.train(model, optimizer, script.CacheDataset(rows), args=arguments)
    return folder


def split(tokenizer: object) -> tuple[object, object, object]:
    """The bundled rows, by mlx-lm."""
    found: tuple[object, object, object] = script.load_local_dataset(
        Path(script.data_path("excel")), tokenizer, SimpleNamespace(mask_prompt=True)
    )
    return found


def validation_loss(adapter: Path) -> float:
    """The loss over the targets of all validation rows."""
    model, tokenizer = script.load(str(script.model_path("tiny")), adapter_path=str(adapter))
    rows = script.CacheDataset(split(tokenizer)[1])
    batches = {"loss": script.loss, "iterate_batches": script.iterate_batches}
    return float(script.evaluate(model, rows, BATCH, -1, **batches))


def measure(train: Callable[[int, Path, int], Path], updates: int, seed: int) -> tuple[float, float]:
    """The validation loss, and the CPU seconds of loading and training."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        adapter = train(updates, Path(folder), seed)
        seconds = time.process_time() - start
        return validation_loss(adapter), seconds


def main() -> None:
    """Print the losses by seed, then the batches of both loops."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    lines = ["| | validation loss, mean | by seed | CPU seconds |", "| --- | --- | --- | --- |"]
    for train in (our_trainer, thirty_lines, unmodified, unmodified_corrected):
        found = [measure(train, options.updates, seed) for seed in options.seeds]
        losses, seconds = [loss for loss, _ in found], statistics.fmean(s for _, s in found)
        shown = ", ".join(f"{loss:.4f}" for loss in losses)
        lines.append(f"| {train.__name__} | {statistics.fmean(losses):.4f} | {shown} | {seconds:.0f} |")
        print(f"{train.__name__} done", file=sys.stderr, flush=True)
    print("\n".join(lines))
    for name, shares in waste.main(BATCH - 1).items():
        print(name, ", ".join(f"{key} {share:.1%}" for key, share in shares.items()))


if __name__ == "__main__":
    main()
