"""One thread of OpenBLAS against all: wall and CPU time of a gradient, by the width of the model.

    python benchmarks/blas_threads.py

Random Llamas of four layers, 8 rows of 64 tokens. Both settings alternate in one process; ratios are those of one thread
over all, the median of the rounds.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable

for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.pop(variable, None)

from mlxsched.platform.blas import preload, use_threads  # noqa: E402  after the variables

preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import mlx.nn as nn  # noqa: E402

from mlxsched.bench.shapes import config_of, random_model  # noqa: E402
from mlxsched.platform.machine import cores  # noqa: E402

ROUNDS, STEPS = 7, 6


def main() -> None:
    """Print a line for each width."""
    print("| width | wall | CPU |\n| ---: | ---: | ---: |")
    for width in (64, 128, 256, 384, 576):
        work = gradient_of(width)
        ratios = [_round(work) for _ in range(ROUNDS + 1)][1:]
        wall, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
        print(f"| {width} | {wall:.2f} | {cpu:.2f} |", flush=True)


def gradient_of(width: int) -> Callable[[], None]:
    """The gradient of a model of a width, to be computed again and again."""
    heads = width // 64
    shape = {
        "hidden_size": width, "num_hidden_layers": 4, "intermediate_size": width * 11 // 4, "vocab_size": 2048,
        "num_attention_heads": heads, "num_key_value_heads": heads,
    }  # fmt: skip
    model, tokens = random_model(config_of("llama-135m", **shape)), mx.random.randint(0, 2048, (8, 65))

    def loss(model: nn.Module) -> mx.array:
        return nn.losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).mean()

    step = nn.value_and_grad(model, loss)
    return lambda: mx.eval(step(model))


def _round(work: Callable[[], None]) -> tuple[float, float]:
    times = []
    for threads in (1, cores()):
        use_threads(threads)
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(STEPS):
            work()
        times.append((time.perf_counter() - wall, time.process_time() - cpu))
    (one, one_cpu), (every, every_cpu) = times
    return one / every, one_cpu / every_cpu


if __name__ == "__main__":
    main()
