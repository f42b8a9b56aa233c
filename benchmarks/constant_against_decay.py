"""Does the schedule matter on the bundled task? Final validation losses of a constant and a decaying rate, each tuned.

    python benchmarks/constant_against_decay.py [--peaks 5e-4 1e-3 2e-3] [--seeds 0 1 2] [--epochs 1]

A comparison at a single peak would be meaningless, because a decaying schedule tolerates a higher one. So each schedule
is tried at several peaks and judged by its best. Everything else comes from the preset `lora`; the loss is that after
the last update.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from mlxsched.config import load_config
from mlxsched.runs.events import Evaluated
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import prepare

SCHEDULES = ("constant", "linear", "cosine", "wsd")


def final_loss(schedule: str, peak: float, seed: int, epochs: float) -> float:
    """The validation loss after the last update of one run."""
    flags = {"schedule": schedule, "learning_rate": peak, "seed": seed, "epochs": epochs, "test": False}
    loaded = load_config(preset="lora", flags=flags)
    session = prepare(loaded.config, loaded.origins)
    losses: list[float] = []

    def see(event: object) -> None:
        if isinstance(event, Evaluated):
            losses.append(event.loss)

    with tempfile.TemporaryDirectory() as directory:
        execute(session, create_run(session, Path(directory) / "run"), see)
    return losses[-1]


def main() -> None:
    """Print a row for each schedule and peak, then the best peak of each schedule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", nargs="+", default=list(SCHEDULES))
    parser.add_argument("--peaks", nargs="+", type=float, default=[5e-4, 1e-3, 2e-3])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=float, default=1.0)
    options = parser.parse_args()
    best: dict[str, tuple[float, float, float]] = {}
    print("| schedule | peak | validation loss, mean | by seed |\n| --- | --- | --- | --- |")
    for schedule in options.schedules:
        for peak in options.peaks:
            losses = [final_loss(schedule, peak, seed, options.epochs) for seed in options.seeds]
            mean = statistics.fmean(losses)
            shown = ", ".join(f"{loss:.4f}" for loss in losses)
            print(f"| {schedule} | {peak:g} | {mean:.4f} | {shown} |", flush=True)
            best[schedule] = min(best.get(schedule, (mean, peak, max(losses))), (mean, peak, max(losses)))
    for schedule, (mean, peak, worst) in best.items():
        print(f"best {schedule}: {mean:.4f} at {peak:g} (worst seed {worst:.4f})")


if __name__ == "__main__":
    main()
