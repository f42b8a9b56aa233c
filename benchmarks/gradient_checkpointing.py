"""What gradient checkpointing costs and saves: `--grad-checkpoint` compared with the same run without it.

    python benchmarks/gradient_checkpointing.py [--rounds 3]

Both train on the same rows from the same weights, alternating in one process. Times are CPU time of the first epoch, which
includes tracing. Micro-batches have the same size on both sides.
"""

from __future__ import annotations

import argparse
import os
import statistics

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import interleaved  # noqa: E402  after the BLAS
from shared_prefix import LLAMA_17M  # noqa: E402

from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402

CASES = (("bundled", 2, 32), ("bundled", -1, 32), ("Llama, 17M", -1, 8))


def main() -> None:
    """Measure the cases, and print a row of the table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    interleaved.LLAMA.update(LLAMA_17M)
    print("| model | trained layers | time | peak above the weights |\n| --- | --- | --- | --- |")
    for model, layers, count in CASES:
        common = {"batch_size": 4, "num_layers": layers, "prefix_cache": 0, "micro_batch_tokens": 512}
        settings = {"plain": {}, "checkpointed": {"grad_checkpoint": True}}
        rows = lognormal_rows(count, LogNormal(longest=512))
        sides = interleaved.interleaved(model, rows, rounds, common, settings)
        plain, checkpointed = sides["plain"], sides["checkpointed"]
        time, low, high = plain.over(checkpointed, epoch=0)
        peak = statistics.median(
            one.peak / other.peak for one, other in zip(checkpointed.rounds, plain.rounds, strict=True)
        )
        trained = "all" if layers < 0 else str(layers)
        print(
            f"| {model} | {trained} | {time - 1:+.0%} ({low - 1:+.0%} to {high - 1:+.0%}) | {peak:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
