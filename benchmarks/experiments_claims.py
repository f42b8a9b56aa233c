"""The usual advice about learning-rate schedules, tried: each claim of docs/experiments.md with its numbers.

    python benchmarks/experiments_claims.py --work DIRECTORY [--seeds 0 1 2] [--models tiny second]
    python benchmarks/experiments_claims.py --work DIRECTORY --tables

Two models: the bundled one on its own data, and one of another shape (pretrained on the spot) on rows about orders. Four
experiments for each: sixteen schedules of 120 updates, each at three peaks; 12 rows many times over; three batch sizes
over the same rows, at six rates; and LoRA and full fine-tuning with three lengths of warmup, up to rates that are too high. All numbers are kept in DIRECTORY, so an interrupted experiment goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
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
RATES = {
    "adamw": tuple(2.5e-4 * 2**power for power in range(6)),
    "sgd": tuple(0.05 * 2**power for power in range(6)),
}
BATCHES = (4, 8, 16)
WARMUPS = (0.0, 0.05, 0.2)
WARMUP_PEAKS = {"lora": (1e-3, 2e-3, 4e-3, 8e-3), "full": (1e-4, 3e-4, 1e-3, 3e-3)}

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
    """The final validation loss, and the best one of a cycle's end."""
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
            last = trials.loss()
            yield f"{name}@{peak:g}", [last, min(cycles, default=last)]


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


def batches(
    setting: dict[str, Any], seed: int, optimizer: str = "adamw"
) -> Iterator[tuple[str, list[float]]]:
    """The final validation loss by batch size and peak, over the same number of rows."""
    for size in BATCHES:
        trials = Trials(seed, **setting, batch_size=size, optimizer=optimizer)
        updates = ROWS_SEEN // size
        for peak in RATES[optimizer]:
            trials.train(warmup_linear(peak, updates, updates // 20), 0, updates, trials.start)
            yield f"{size}@{peak:g}", [trials.loss()]


def batches_sgd(setting: dict[str, Any], seed: int) -> Iterator[tuple[str, list[float]]]:
    """`batches` with SGD."""
    return batches(setting, seed, "sgd")


def warmups(setting: dict[str, Any], seed: int) -> Iterator[tuple[str, list[float]]]:
    """Highest early validation loss over that of the start, and the final one, with and without a warmup."""
    for kind, peaks in WARMUP_PEAKS.items():
        trials = Trials(seed, **setting, batch_size=ROWS, fine_tune_type=kind)
        begin = trials.loss(trials.start)
        for share in WARMUPS:
            for peak in peaks:
                early: list[float] = []

                def see(update: int, early: list[float] = early, trials: Trials = trials) -> None:
                    if update in (2, 5, 10, EARLY):
                        early.append(trials.loss())

                rate = (
                    warmup_linear(peak, UPDATES, round(share * UPDATES)) if share else linear(peak, UPDATES)
                )
                trials.train(rate, 0, UPDATES, trials.start, see)
                yield f"{kind}, {share:.0%}@{peak:g}", [max(early) / begin, trials.loss()]


EXPERIMENTS = {
    "schedules": schedules,
    "few": few_rows,
    "batches": batches,
    "batches_sgd": batches_sgd,
    "warmups": warmups,
}


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
    """Each schedule at its best peak, less the linear decay at its own, paired by seed."""
    reference = tuned(results, "linear, warmup 5%")[1]
    for name in sorted(SCHEDULES, key=lambda name: statistics.fmean(tuned(results, name)[1])):
        peak, losses = tuned(results, name)
        difference = shown([a - b for a, b in zip(losses, reference, strict=True)], signed=True)
        means = [statistics.fmean(one[f"{name}@{at:g}"][0] for one in results) for at in PEAKS]
        yield [name, f"{peak:g}", shown(losses), difference, *(f"{mean:.3f}" for mean in means)]


def best_rate(losses: dict[float, float]) -> float:
    """The vertex of the parabola in log rate through the lowest point and its neighbours."""
    rates = sorted(losses)
    at = min(max(min(range(len(rates)), key=lambda i: losses[rates[i]]), 1), len(rates) - 2)
    low, mid, high = (losses[rates[i]] for i in (at - 1, at, at + 1))
    step = math.log(rates[1] / rates[0])
    shift = (low - high) / (2 * (low - 2 * mid + high)) if low + high > 2 * mid else 0.0
    return math.exp(math.log(rates[at]) + step * min(max(shift, -1), 1))


def batch_rows(results: list[dict[str, list[float]]], rates: Sequence[float]) -> Iterator[list[str]]:
    """The best peak of each batch size, and the exponent of the batch size that connects them."""
    best = {}
    for size in BATCHES:
        means = {peak: statistics.fmean(one[f"{size}@{peak:g}"][0] for one in results) for peak in rates}
        best[size] = best_rate(means)
        yield [f"{size}", f"{best[size]:.2g}", *(f"{loss:.3f}" for loss in means.values())]
    slope = math.log(best[BATCHES[-1]] / best[BATCHES[0]]) / math.log(BATCHES[-1] / BATCHES[0])
    yield ["exponent", f"{slope:.2f}", *([""] * len(rates))]


def warmup_rows(results: list[dict[str, list[float]]], kind: str) -> Iterator[list[str]]:
    """Each length of the warmup: the highest early loss over the first one, then the final loss, by peak."""
    for share in WARMUPS:
        found = [[one[f"{kind}, {share:.0%}@{peak:g}"] for one in results] for peak in WARMUP_PEAKS[kind]]
        early = [f"{statistics.fmean(value for value, _ in seeds):.2f}" for seeds in found]
        yield [f"{share:.0%}", *early, *(shown([loss for _, loss in seeds]) for seeds in found)]


def report_schedules(results: list[dict[str, list[float]]]) -> None:
    """The schedules, and what the best cycle of the restarts would have given."""
    header = ["schedule", "best peak", "validation loss", "less linear", *(f"at {peak:g}" for peak in PEAKS)]
    table(header, list(schedule_rows(results)))
    restarts = [min(one[f"restarts, 3 cycles@{peak:g}"][-1] for peak in PEAKS) for one in results]
    print(f"\nBest end of a cycle of the restarts: {shown(restarts)}")


def report_few(results: list[dict[str, list[float]]]) -> None:
    """Few rows, many times."""
    rows = []
    for name in FEW:
        last, best, after = zip(*(one[name] for one in results), strict=True)
        rows.append([name, shown(last), shown(best), f"{statistics.fmean(after):.0f}"])
    table(["schedule", "last", "best", "best after"], rows)


def report_batches(results: list[dict[str, list[float]]], rates: Sequence[float]) -> None:
    """The losses by batch size and rate."""
    table(["batch", "best peak", *(f"{rate:g}" for rate in rates)], list(batch_rows(results, rates)))


def report_warmups(results: list[dict[str, list[float]]]) -> None:
    """A table for LoRA and one for full fine-tuning."""
    for kind, peaks in WARMUP_PEAKS.items():
        header = [f"{kind}, warmup", *(f"highest early loss at {peak:g}" for peak in peaks)]
        table([*header, *(f"last at {peak:g}" for peak in peaks)], list(warmup_rows(results, kind)))
        print()


def report(work: Path, models: list[str]) -> None:
    """Print all tables of which there is something."""
    reports: dict[str, Callable[[list[dict[str, list[float]]]], None]] = {
        "schedules": report_schedules,
        "few": report_few,
        "batches": lambda results: report_batches(results, RATES["adamw"]),
        "batches_sgd": lambda results: report_batches(results, RATES["sgd"]),
        "warmups": report_warmups,
    }
    for model in models:
        for experiment, show in reports.items():
            if results := kept(work, experiment, model):
                print(f"\n### {model}: {experiment} ({len(results)} seeds)\n")
                show(results)


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
