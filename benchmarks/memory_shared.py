"""Predicted and measured peaks where layers are recomputed and rows share a prompt.

    python benchmarks/memory_shared.py

Trains the bundled model for two updates on rows of random tokens with a common prefix. Peaks are above the weights.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import numpy as np  # noqa: E402  after the BLAS

from mlxsched.bench import ours  # noqa: E402
from mlxsched.bench.compare import shortened  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.data import Dataset  # noqa: E402
from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

MIXED = (200, 120, 90, 300, 60, 440, 150, 110)
ROWS = ((256, MIXED), (600, MIXED), (512, (60,) * 16))  # tokens of the prompt, and of what each row adds
TOKENS = (1024, 256)  # of a micro-batch


def main() -> None:
    """Print a line for each case."""
    for shared, owns in ROWS:
        for layers in (-1, 2):
            for tokens in TOKENS:
                planned, measured = peaks(rows(shared, owns), layers, tokens)
                print(
                    f"{shared} + {min(owns)} to {max(owns)} tokens, {len(owns)} rows, {layers} layers, micro-batches of {tokens}: "
                    f"{planned / 1e6:.1f} {measured / 1e6:.1f} MB {planned / measured - 1:+.1%}",
                    flush=True,
                )


def rows(shared: int, owns: tuple[int, ...]) -> Rows:
    """Rows that begin with the same ``shared`` tokens; the second half of what each adds is scored."""
    draw = np.random.default_rng(0)
    prompt, found = draw.integers(1, 256, shared), []
    for own in owns:
        tokens = np.concatenate([prompt, draw.integers(1, 256, own)]).astype(np.int32)
        found.append((tokens, np.arange(len(tokens)) > shared + own // 2))
    return rows_in_memory(found)


def peaks(rows: Rows, layers: int, tokens: int) -> tuple[int, int]:
    """The planned and the measured peak above the weights."""
    flags = {
        "batch_size": len(rows), "iters": 2, "test": False, "grad_checkpoint": True, "num_layers": layers,
        "micro_batch_tokens": tokens,
    }  # fmt: skip
    session = prepare(load_config(flags=flags).config, dataset=Dataset({"train": rows}, "synthetic"))
    measured = ours.train(shortened(session, rows, later=False), 1)
    return session.memory.above_weights, measured.peak


if __name__ == "__main__":
    main()
