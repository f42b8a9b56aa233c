"""Updates of few rows with and without a length window (`--length-window 16`): padding, micro-batches, time.

    python benchmarks/length_window.py [--loss]

``--loss`` trains on the bundled rows instead, with windows of 1 and 128 updates, and prints the validation loss at the end.
The bundled model on log-normal rows, with all layers trained, so that only the order of the rows differs. Times are CPU
time (user and system) on the CPU backend; each line is the median of three alternating rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

from interleaved import interleaved  # noqa: E402  after the BLAS

from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402
from mlxsched.config import RunConfig  # noqa: E402
from mlxsched.training.run import create_run, execute  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

ROWS, WINDOW, ROUNDS = 128, 16, 3
UPDATES, WINDOWS, SEEDS = 200, (1, 128), (0, 1)


def final_loss(window: int, seed: int) -> float:
    """The validation loss of a run of 4 rows per update with that length window, at its end."""
    config = RunConfig(
        batch_size=4, iters=UPDATES, length_window=window, seed=seed, test=False, steps_per_eval=UPDATES
    )
    with tempfile.TemporaryDirectory() as folder:
        session = prepare(config)
        progress = execute(session, create_run(session, Path(folder) / "run"))
    assert progress.evaluated_loss is not None  # noqa: S101
    return progress.evaluated_loss


def losses() -> None:
    """Print the table of the losses."""
    print(
        f"| length window | validation loss after {UPDATES} updates, seeds {SEEDS} | mean |\n| --- | --- | --- |"
    )
    for window in WINDOWS:
        found = [final_loss(window, seed) for seed in SEEDS]
        listed = ", ".join(f"{loss:.3f}" for loss in found)
        print(f"| {window} | {listed} | {statistics.fmean(found):.3f} |", flush=True)


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loss", action="store_true")
    if parser.parse_args().loss:
        losses()
    else:
        speeds()


def speeds() -> None:
    """Print the table of padding and times."""
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
