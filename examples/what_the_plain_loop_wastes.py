"""The batches of mlx-lm's trainer next to ours, on the same rows: padding, rows left out, padding that is scored.

Ours are those of an evaluation, sorted by length. In training they are random, and `length_window` sorts within a window.

python examples/what_the_plain_loop_wastes.py [BATCH_SIZE]
"""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from mlx_lm import load
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset, load_local_dataset

from mlxsched.bundled import data_path, model_path
from mlxsched.integrations import mlx_lm as ours


def measure(batches, rows: int, *, scores_padding: bool) -> dict[str, float]:
    """One epoch of ``batches``: shares of padding, of rows left out, and of targets that are padding."""
    padded = real = targets = padding_targets = seen = 0
    for batch, spans in batches:
        spans = np.array(spans)
        offset, length = spans[:, 0], spans[:, 1]
        padded += batch.size
        real += length.sum()
        seen += (length > 0).sum()
        targets += (length - np.maximum(offset, 1)).sum()
        padding_targets += (length < batch.shape[1]).sum() if scores_padding else 0
    return {
        "padding of all tokens": 1 - real / padded,
        "rows left out": 1 - seen / rows,
        "padding of all targets": padding_targets / (targets + padding_targets),
    }


def main(batch_size: int = 7) -> dict[str, dict[str, float]]:
    _, tokenizer = load(str(model_path("tiny")))
    rows, _, _ = load_local_dataset(Path(data_path("excel")), tokenizer, SimpleNamespace(mask_prompt=True))
    data = CacheDataset(rows)
    return {
        "mlx-lm": measure(trainer.iterate_batches(data, batch_size, 2048), len(data), scores_padding=True),
        "mlxsched": measure(ours.iterate_batches(data, batch_size, 2048), len(data), scores_padding=False),
    }


if __name__ == "__main__":
    found = main(*map(int, sys.argv[1:]))
    print(f"{'':26}" + "".join(f"{name:>10}" for name in found))
    for key in found["mlx-lm"]:
        print(f"{key:26}" + "".join(f"{values[key]:10.2%}" for values in found.values()))
