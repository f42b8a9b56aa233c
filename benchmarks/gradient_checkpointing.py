"""What gradient checkpointing costs and saves: `--grad-checkpoint` compared with the same run without it.

    python benchmarks/gradient_checkpointing.py [--rounds 3]

All sides train on the same rows from the same weights, alternating in one process. Times are CPU time of the first epoch, which
includes tracing. Micro-batches have the same size on all sides. One side has no limit on what MLX allocates ahead.
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

SETTINGS = {
    "plain": {},
    "unlimited": {"grad_checkpoint": True, "without": "allocation-limit"},
    "limited": {"grad_checkpoint": True},
}
CASES = (("bundled", 2, 32), ("bundled", -1, 32), ("Llama, 17M", -1, 8))


def main() -> None:
    """Measure the cases, and print a row of the table for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    interleaved.LLAMA.update(LLAMA_17M)
    print(
        "| model | trained layers | allocation limit | CPU time | peak above the weights |\n"
        + "| --- " * 5
        + "|"
    )
    for model, layers, count in CASES:
        common = {"batch_size": 4, "num_layers": layers, "prefix_cache": 0, "micro_batch_tokens": 512}
        rows = lognormal_rows(count, LogNormal(longest=512))
        sides = interleaved.interleaved(model, rows, rounds, common, SETTINGS)
        for name in ("unlimited", "limited"):
            time, low, high = sides["plain"].over(sides[name], epoch=0)
            pairs = zip(sides[name].rounds, sides["plain"].rounds, strict=True)
            peak = statistics.median(one.peak / other.peak for one, other in pairs)
            trained = "all" if layers < 0 else str(layers)
            print(
                f"| {model} | {trained} | {'yes' if name == 'limited' else 'no'} "
                f"| {time - 1:+.0%} ({low - 1:+.0%} to {high - 1:+.0%}) | {peak:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
