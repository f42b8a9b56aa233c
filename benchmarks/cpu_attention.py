"""Causal attention of a layer, forward and backward, in float32 on a CPU: ours compared with MLX's, unblocked.

    python benchmarks/cpu_attention.py

Both are compiled and run in turn; the ratio is that of the medians of 30 rounds of CPU time. "Behind" is the number of tokens
of a shared prompt before the row, whose keys MLX's attention needs copied to every row.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import statistics  # noqa: E402  after the BLAS
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

import mlx.core as mx  # noqa: E402

from mlxsched.model.fast.attention import KEPT, Blocks, in_blocks  # noqa: E402
from mlxsched.model.fast.growing_cache import GrowingCache  # noqa: E402

# rows, heads, heads of keys, tokens of a row, width of a head, tokens before
CASES = (
    (64, 4, 4, 16, 32, 0), (32, 4, 4, 32, 32, 0), (16, 4, 4, 64, 32, 0), (8, 6, 2, 128, 64, 0), (2, 4, 4, 300, 32, 0),
    (1, 9, 3, 600, 64, 0), (4, 4, 4, 100, 32, 511), (4, 6, 2, 100, 64, 511), (6, 4, 4, 42, 32, 511),
)  # fmt: skip


def gradients(blocks: Blocks | None, before: int) -> Callable[..., Any]:
    """A function that computes an attention and its gradients."""

    def loss(queries: mx.array, *keys: mx.array) -> mx.array:
        cache = GrowingCache()
        with in_blocks(blocks):
            if before:
                cache.update_and_fetch(*keys[2:])
            both = cache.update_and_fetch(*keys[:2])
            scale = queries.shape[-1] ** -0.5
            return (
                mx.fast.scaled_dot_product_attention(queries, *both, scale=scale, mask="causal")
                .square()
                .sum()
            )

    compiled: Callable[..., Any] = mx.compile(
        mx.value_and_grad(loss, argnums=(0, 1, 2, 3, 4) if before else (0, 1, 2))
    )
    return compiled


def line(rows: int, heads: int, of_keys: int, length: int, width: int, before: int) -> str:
    """A row of the table."""
    sizes = [
        (rows, length, heads),
        *[(rows, length, of_keys)] * 2,
        *[(1, before, of_keys)] * 2 * bool(before),
    ]
    arrays = [mx.random.normal((*size, width)).swapaxes(1, 2) for size in sizes]
    mx.eval(arrays)
    sides = {name: gradients(blocks, before) for name, blocks in (("MLX", None), ("ours", KEPT))}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(31):
        for name, compute in sides.items():
            start = time.process_time()
            mx.eval(compute(*arrays))
            mx.synchronize()
            seconds[name].append(time.process_time() - start)
    theirs, ours = (statistics.median(found[1:]) for found in seconds.values())
    return f"| {rows} x {length} | {before} | {heads} ({of_keys}) of {width} | {1e3 * theirs:.1f} | {1e3 * ours:.1f} | **{theirs / ours:.2f}x** |"


def main() -> None:
    """Print the table."""
    print(
        "| rows x tokens | behind | heads (of keys) of width | MLX, ms | ours, ms | ratio |\n| --- "
        + "| --- " * 5
        + "|"
    )
    for case in CASES:
        print(line(*case), flush=True)


if __name__ == "__main__":
    main()
