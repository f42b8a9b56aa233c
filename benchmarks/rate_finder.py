"""Judge `mlxsched lr-find` by the validation loss that its suggestions lead to, against a grid of peaks.

python benchmarks/rate_finder.py grid --folder /tmp/rates       # trains the grid; interrupted, it goes on later
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rate_cases import Case, Kept, all_cases, prepare_folder

from mlxsched.text import clock

STEP = 1.8  # between two peaks of the grid
ORIGIN = 2e-4  # a peak of every grid: what a run has by default
SEEDS = (0, 1)
PAST = 1.06  # a grid ends where the loss is this much above its lowest, on both sides


def peak_at(index: int) -> float:
    """The peak number ``index`` of a grid."""
    return ORIGIN * STEP**index


def grid(case: Case, kept: Kept, seeds: tuple[int, ...] = SEEDS) -> dict[int, float]:
    """The loss by the index of the peak, from below the best peak to above it.

    The three best are means over ``seeds``; the others have one seed, which is enough to know that they are past it.
    """
    start = 9 if case.more.get("optimizer") == "sgd" else 2
    losses = {index: kept.mean(case, peak_at(index), SEEDS[:1]) for index in (start, start + 1)}
    while ends := open_ends(losses):
        losses |= {index: kept.mean(case, peak_at(index), SEEDS[:1]) for index in ends}
    for index in sorted(losses, key=losses.__getitem__)[:3]:
        losses[index] = kept.mean(case, peak_at(index), seeds)
    return losses


def open_ends(losses: dict[int, float]) -> list[int]:
    """The next index on each side on which the grid is not past its minimum yet."""
    low, high, best = min(losses), max(losses), min(losses.values())
    return [index for index, end in ((low - 1, low), (high + 1, high)) if losses[end] < PAST * best]


def train_grids(kept: Kept) -> None:
    """The grid of each case, first with one seed, then with all, with the time left on stderr."""
    for seeds in (SEEDS[:1], SEEDS):
        cases, started = all_cases(), time.monotonic()
        for done, case in enumerate(cases, start=1):
            losses = grid(case, kept, seeds)
            left = (time.monotonic() - started) / done * (len(cases) - done)
            shown = " ".join(f"{peak_at(index):.1e}:{losses[index]:.4f}" for index in sorted(losses))
            line = f"{done}/{len(cases)} {case.name} {shown}, about {clock(left)} left"
            print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["grid"])
    parser.add_argument("--folder", type=Path, required=True, help="models, data and kept results")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare_folder(given.folder)
    train_grids(Kept(given.folder))


if __name__ == "__main__":
    main()
