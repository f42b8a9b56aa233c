"""mlx-lm's trainer with the schedule, loss, batches and callback of mlxsched.

python examples/mlx_lm_trainer.py [ITERATIONS [DIRECTORY]]
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm import load
from mlx_lm.tuner.datasets import CacheDataset, load_local_dataset
from mlx_lm.tuner.trainer import TrainingArgs, evaluate, train
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import save_config

import mlxsched as ms
from mlxsched.bundled import data_path, model_path
from mlxsched.integrations.mlx_lm import MetricsCallback, iterate_batches, loss

LORA = {"rank": 16, "scale": 20.0, "dropout": 0.0}


def main(iters: int = 100, directory: Path = Path("example-run"), seed: int = 0) -> float:
    directory.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load(str(model_path("tiny")))
    rows, valid, _ = load_local_dataset(
        Path(data_path("excel")), tokenizer, SimpleNamespace(mask_prompt=True)
    )
    mx.random.seed(seed)  # LoRA's A matrices
    np.random.seed(seed)  # the order of the rows
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), LORA)
    config = {"fine_tune_type": "lora", "num_layers": len(model.layers), "lora_parameters": LORA}
    save_config(config, directory / "adapter_config.json")
    schedule = ms.warmup_linear(peak=1e-3, steps=iters, warmup=0.1)
    arguments = TrainingArgs(
        8, iters, steps_per_report=10, adapter_file=str(directory / "adapters.safetensors")
    )
    with MetricsCallback(directory / "metrics.jsonl") as metrics:
        train(
            model, optim.AdamW(schedule, bias_correction=True), CacheDataset(rows), args=arguments,
            loss=loss, iterate_batches=iterate_batches, training_callback=metrics,
        )  # fmt: skip
    return evaluate(model, CacheDataset(valid), 8, 16, loss=loss, iterate_batches=iterate_batches)


if __name__ == "__main__":
    given = [int(sys.argv[1]), *map(Path, sys.argv[2:])] if len(sys.argv) > 1 else []
    print(f"validation loss {main(*given):.4f}")
