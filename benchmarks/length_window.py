"""Updates of few rows with and without a length window (`--length-window 16`): padding, micro-batches, time.

    python benchmarks/length_window.py

The bundled model on log-normal rows, with all layers trained, so that only the order of the rows differs. Times are CPU
time (user and system) on the CPU backend; each line is the median of three alternating rounds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

from interleaved import interleaved  # noqa: E402  after the BLAS

from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402

ROWS, WINDOW, ROUNDS = 128, 16, 3


def main() -> None:
    """Print the table."""
    print(
        "| rows per update | padding | padding, window | micro-batches per update | micro-batches, window | first epoch "
        "| second epoch |\n| --- " + "| --- " * 6 + "|"
    )
    rows = lognormal_rows(ROWS, LogNormal(longest=1024))
    for batch in (2, 4, 8):
        settings = {"window": {"length_window": WINDOW}, "none": {"length_window": 1}}
        sides = interleaved("bundled", rows, ROUNDS, {"batch_size": batch}, settings)
        window, none = sides["window"], sides["none"]
        first, later = window.over(none, 0), window.over(none, 1)
        before, after = none.sampled, window.sampled
        print(
            f"| {batch} | {before.padding:.0%} | {after.padding:.0%} | {before.per_update:.1f} | {after.per_update:.1f} "
            f"| {first[0]:.2f}x | **{later[0]:.2f}x** ({later[1]:.2f} to {later[2]:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
