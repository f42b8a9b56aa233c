"""The usual advice about learning-rate schedules, tried: each claim of docs/experiments.md with its numbers.

    python benchmarks/experiments_claims.py --work DIRECTORY [--seeds 0 1 2] [--models tiny second]
    python benchmarks/experiments_claims.py --work DIRECTORY --tables

Two models: the bundled one on its own data, and one of another shape (pretrained on the spot) on rows about orders. Three
experiments for each: sixteen schedules of 120 updates, each at three peaks; 12 rows many times over; and three batch
sizes over the same rows, at six rates. All numbers are kept in DIRECTORY, so an interrupted experiment goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlxsched.platform.blas import preload

preload()

from experiments import Trials, shown, table  # noqa: E402  after the BLAS
from labelled_runs import second_model, write_data  # noqa: E402

from mlxsched.schedules import (  # noqa: E402
    constant,
    cosine,
    cosine_restarts,
    linear,
    multistep,
    one_cycle,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
    wsd,
)

UPDATES, SHORT = 120, 72
ROWS = 4  # of an update
PEAKS = (5e-4, 1e-3, 2e-3)
EARLY = 20  # the first updates, in which a missing warmup shows
CYCLE = UPDATES // 3
FEW_UPDATES = 120
ROWS_SEEN = 640
RATES = tuple(2.5e-4 * 2**power for power in range(6))
BATCHES = (4, 8, 16)

Rate = Callable[[int], float]
SCHEDULES: dict[str, tuple[int, Callable[[float], Rate]]] = {
    "constant, no warmup": (UPDATES, constant),
    "constant, warmup 5%": (UPDATES, lambda peak: warmup_constant(peak, 6)),
    "linear, no warmup": (UPDATES, lambda peak: linear(peak, UPDATES)),
    "linear, warmup 5%": (UPDATES, lambda peak: warmup_linear(peak, UPDATES, 6)),
    "linear, warmup 20%": (UPDATES, lambda peak: warmup_linear(peak, UPDATES, 24)),
    "cosine, no warmup": (UPDATES, lambda peak: cosine(peak, UPDATES)),
    "cosine, warmup 5%": (UPDATES, lambda peak: warmup_cosine(peak, UPDATES, 6)),
    "cosine, warmup 5%, to a tenth": (UPDATES, lambda peak: warmup_cosine(peak, UPDATES, 6, peak / 10)),
    "wsd, warmup 5%": (UPDATES, lambda peak: wsd(peak, UPDATES, 6)),
    "one-cycle": (UPDATES, lambda peak: one_cycle(peak, UPDATES)),
    "one-cycle, 60% of the updates": (SHORT, lambda peak: one_cycle(peak, SHORT)),
    "linear, warmup 5%, 60% of the updates": (SHORT, lambda peak: warmup_linear(peak, SHORT, 4)),
    "steps of a tenth at 1/3 and 2/3": (UPDATES, lambda peak: multistep(peak, [CYCLE, 2 * CYCLE])),
    "restarts, 3 cycles": (UPDATES, lambda peak: cosine_restarts(peak, UPDATES, cycles=3)),
    "too steep: linear to zero in the first fifth": (UPDATES, lambda peak: warmup_linear(peak, UPDATES // 5, 2)),
    "too slow: linear over ten times the run": (UPDATES, lambda peak: warmup_linear(peak, 10 * UPDATES, 6)),
}  # fmt: skip
FEW: dict[str, Callable[[float], Rate]] = {
    "constant": lambda peak: warmup_constant(peak, 6),
    "linear": lambda peak: warmup_linear(peak, FEW_UPDATES, 6),
    "too slow: linear over ten times the run": lambda peak: warmup_linear(peak, 10 * FEW_UPDATES, 6),
    "too steep: linear to zero in the first fifth": lambda peak: warmup_linear(peak, FEW_UPDATES // 5, 2),
}


# Measurements: flat dictionaries of numbers, one for each model, experiment and seed


def schedules(setting: dict[str, Any], seed: int) -> Iterator[tuple[str, list[float]]]:
    """Final validation loss, highest of the early losses over the first one, and best validation loss of a cycle's end."""
    trials = Trials(seed, **setting, batch_size=ROWS)
    for name, (updates, make) in SCHEDULES.items():
        for peak in PEAKS:
            cycles: list[float] = []

            def see(update: int, cycles: list[float] = cycles) -> None:
                if update % CYCLE == 0:
                    cycles.append(trials.loss())

            trials.train(
                make(peak), 0, updates, trials.start, see if "restarts" in name else lambda update: None
            )
            early = max(trials.losses[:EARLY]) / trials.losses[0]
            last = trials.loss()
            yield f"{name}@{peak:g}", [last, early, min(cycles, default=last)]


def few_rows(setting: dict[str, Any], seed: int) -> Iterator[tuple[str, list[float]]]:
    """Final and best validation loss where 12 rows are read 40 times."""
    few = {**setting, "data": setting["data"] + "-few", "epochs": 40, "iters": None}
    trials = Trials(seed, **few, batch_size=ROWS)
    for name, make in FEW.items():
        seen: list[float] = []

        def see(update: int, seen: list[float] = seen) -> None:
            if update % 10 == 0:
                seen.append(trials.loss())

        trials.train(make(1e-3), 0, FEW_UPDATES, trials.start, see)
        yield name, [seen[-1], min(seen), (seen.index(min(seen)) + 1) * 10]


def batches(setting: dict[str, Any], seed: int) -> Iterator[tuple[str, list[float]]]:
    """The final validation loss by batch size and peak, over the same number of rows."""
    for size in BATCHES:
        trials = Trials(seed, **setting, batch_size=size)
        updates = ROWS_SEEN // size
        for peak in RATES:
            trials.train(warmup_linear(peak, updates, updates // 20), 0, updates, trials.start)
            yield f"{size}@{peak:g}", [trials.loss()]


EXPERIMENTS = {"schedules": schedules, "few": few_rows, "batches": batches}


def settings(work: Path) -> dict[str, dict[str, Any]]:
    """What the trials of each model set; makes the data and the second model where they are missing."""
    if not (work / "data").exists():
        write_data(work / "data")
    second = str(second_model(work / "second"))
    return {
        "tiny": {"data": str(work / "data" / "excel")},
        "second": {"data": str(work / "data" / "orders"), "model": second},
    }


def measure(work: Path, models: list[str], seeds: list[int]) -> None:
    """Train what is missing, seed by seed, so that every table is there early."""
    made = settings(work)
    for seed in seeds:
        for experiment, trial in EXPERIMENTS.items():
            for model in models:
                place = work / f"{experiment}-{model}-{seed}.json"
                if place.exists():
                    continue
                started = time.monotonic()
                found = dict(trial({**made[model], "val_batches": -1}, seed))
                place.write_text(json.dumps(found, indent=1))
                print(f"{place.stem}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


# Tables


def kept(work: Path, experiment: str, model: str) -> list[dict[str, list[float]]]:
    """The measurements of an experiment, seed by seed."""
    return [json.loads(path.read_text()) for path in sorted(work.glob(f"{experiment}-{model}-*.json"))]


def tuned(results: list[dict[str, list[float]]], name: str) -> tuple[float, list[float]]:
    """The peak at which a schedule is best on average, and its final losses there."""
    peak = min(PEAKS, key=lambda peak: statistics.fmean(one[f"{name}@{peak:g}"][0] for one in results))
    return peak, [one[f"{name}@{peak:g}"][0] for one in results]


def schedule_rows(results: list[dict[str, list[float]]]) -> Iterator[list[str]]:
    """Each schedule at its best peak, less the linear decay at its own, paired by seed; then what happened early."""
    reference = tuned(results, "linear, warmup 5%")[1]
    for name in sorted(SCHEDULES, key=lambda name: statistics.fmean(tuned(results, name)[1])):
        peak, losses = tuned(results, name)
        difference = shown([a - b for a, b in zip(losses, reference, strict=True)], signed=True)
        means = [statistics.fmean(one[f"{name}@{at:g}"][0] for one in results) for at in PEAKS]
        early = [statistics.fmean(one[f"{name}@{at:g}"][1] for one in results) for at in PEAKS]
        columns = [f"{mean:.3f}" for mean in means] + [f"{value:.2f}" for value in early]
        yield [name, f"{peak:g}", shown(losses), difference, *columns]


def best_rate(losses: dict[float, float]) -> float:
    """The vertex of the parabola in log rate through the lowest point and its neighbours."""
    rates = sorted(losses)
    at = min(max(min(range(len(rates)), key=lambda i: losses[rates[i]]), 1), len(rates) - 2)
    low, mid, high = (losses[rates[i]] for i in (at - 1, at, at + 1))
    step = math.log(rates[1] / rates[0])
    shift = (low - high) / (2 * (low - 2 * mid + high)) if low + high > 2 * mid else 0.0
    return math.exp(math.log(rates[at]) + step * min(max(shift, -1), 1))


def batch_rows(results: list[dict[str, list[float]]]) -> Iterator[list[str]]:
    """The best peak of each batch size, and the exponent of the batch size that connects them."""
    best = {}
    for size in BATCHES:
        means = {peak: statistics.fmean(one[f"{size}@{peak:g}"][0] for one in results) for peak in RATES}
        best[size] = best_rate(means)
        yield [f"{size}", f"{best[size]:.2g}", *(f"{loss:.3f}" for loss in means.values())]
    slope = math.log(best[BATCHES[-1]] / best[BATCHES[0]]) / math.log(BATCHES[-1] / BATCHES[0])
    yield ["exponent", f"{slope:.2f}", *([""] * len(RATES))]


def report(work: Path, models: list[str]) -> None:
    """Print all tables."""
    for model in models:
        results = kept(work, "schedules", model)
        print(f"\n### {model}: schedules ({len(results)} seeds)\n")
        header = ["schedule", "best peak", "validation loss", "less linear"]
        table(
            [*header, *(f"at {p:g}" for p in PEAKS), *(f"early at {p:g}" for p in PEAKS)],
            list(schedule_rows(results)),
        )
        restarts = [min(one[f"restarts, 3 cycles@{p:g}"][2] for p in PEAKS) for one in results]
        print(f"\nBest end of a cycle of the restarts: {shown(restarts)}\n\n### {model}: 12 rows, 40 times\n")
        few = kept(work, "few", model)
        table(["schedule", "last", "best", "best after"],
              [[name, shown([one[name][0] for one in few]), shown([one[name][1] for one in few]),
                f"{statistics.fmean(one[name][2] for one in few):.0f}"] for name in FEW])  # fmt: skip
        print(f"\n### {model}: batch sizes, {ROWS_SEEN} rows\n")
        table(
            ["batch", "best peak", *(f"{rate:g}" for rate in RATES)],
            list(batch_rows(kept(work, "batches", model))),
        )


def main() -> None:
    """Train what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="+", choices=["tiny", "second"], default=["tiny", "second"])
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    given = parser.parse_args()
    if not given.tables:
        measure(given.work, given.models, given.seeds)
    report(given.work, given.models)


if __name__ == "__main__":
    main()
