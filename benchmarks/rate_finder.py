"""Judge `mlxsched lr-find` by the validation loss that its suggestions lead to, against a grid of peaks.

python benchmarks/rate_finder.py grid --folder /tmp/rates       # trains the grid; interrupted, it goes on later
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rate_cases import Case, Kept, even_cases, fresh_cases, odd_cases, prepare_folder

from mlxsched.experiments.rate_finder import Budget, Search
from mlxsched.experiments.rate_finder.estimate import lowest
from mlxsched.experiments.rate_finder.range_test import RISE, exponential, steepest, valley
from mlxsched.experiments.rate_finder.result import Candidate
from mlxsched.experiments.rate_finder.trials import Trials
from mlxsched.runs import atomic
from mlxsched.text import clock
from mlxsched.training.session import prepare

STEP = 1.8  # between two peaks of the grid
ORIGIN = 2e-4  # a peak of every grid: what a run has by default
SEEDS = (0, 1)
BUDGET = 100  # updates: 20% of a run of 500
FASTAI = 100  # updates of fastai's range test, from 1e-7 to 10
ALWAYS = "2e-4 always"
RULES = ("lr-find", ALWAYS, "prior", "branches", "valley", "steepest", "tenth_of_divergence")
GROUPS = {
    "fresh cases, on which nothing was chosen": fresh_cases(),
    "odd cases, whose results with earlier versions were known": odd_cases(),
    "even cases, on which the constants were chosen": even_cases(),
}
CASES = [case for group in GROUPS.values() for case in group]
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
        cases, started = CASES, time.monotonic()
        for done, case in enumerate(cases, start=1):
            losses = grid(case, kept, seeds)
            left = (time.monotonic() - started) / done * (len(cases) - done)
            shown = " ".join(f"{peak_at(index):.1e}:{losses[index]:.4f}" for index in sorted(losses))
            line = f"{done}/{len(cases)} {case.name} {shown}, about {clock(left)} left"
            print(line, file=sys.stderr, flush=True)


def search_all(folder: Path) -> None:
    """Search for each case, as a user would, and make a range test of fastai's length for the other rules."""
    file = folder / "found.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for case in CASES:
        if case.name not in found:
            found[case.name] = search(case, folder)
            atomic.write_json(file, found)
            print(f"{case.name}: {found[case.name]['rates']}", file=sys.stderr, flush=True)


def search(case: Case, folder: Path) -> dict[str, Any]:
    """What each rule suggests, and what the search cost."""
    loaded = case.config(folder, seed=0)
    searching = Search(prepare(loaded.config, loaded.origins), Budget(BUDGET))
    result = searching.run()
    unit = 100 if case.more.get("optimizer") == "sgd" else 1
    others = fastai_marks(searching.trials, exponential(1e-7 * unit, 10.0 * unit, FASTAI))
    rates = {
        "lr-find": result.suggestion,
        "prior": searching.prior.peak,
        "branches": result.marks["branches"],
    }
    found = {"rates": {**rates, **others}, "cost": result.cost_updates, "seconds": result.seconds}
    return {**found, "per_update": searching.seconds_per_update, "result": result.to_dict()}


def fastai_marks(trials: Trials, rates: list[float]) -> dict[str, float]:
    """The other rules on a range test as fastai makes it: other rows at each rate, a smoothed loss, "4x best" as its end.

    As there, the first tenth and the last 5 points count for neither valley nor steepest descent.
    """
    mean, smoothed, broke = 0.0, [], rates[-1]
    for position, loss in enumerate(trials.sweep(rates, lambda at: at)):
        mean = 0.98 * mean + 0.02 * loss
        smoothed.append(mean / (1 - 0.98 ** (position + 1)))
        if smoothed[-1] < min(smoothed) + RISE:
            broke = rates[position]  # the last rate before the loss stays above
        if smoothed[-1] > 4 * min(smoothed):
            break
    inner = slice(len(rates) // 10, len(smoothed) - 5)
    marks = {
        "valley": valley(rates[inner], smoothed[inner]),
        "steepest": steepest(rates[inner], smoothed[inner]),
    }
    return {**marks, "tenth_of_divergence": broke / 10}


def train_found(kept: Kept, folder: Path) -> None:
    """Train each case at the peak that the search suggests, with the seeds of the grid."""
    found = json.loads((folder / "found.json").read_text())
    for case in CASES:
        if case.name in found:
            ours = found[case.name]["rates"]["lr-find"]
            value = kept.mean(case, ours, SEEDS) / min(both_seeds(case, kept).values()) - 1
            print(f"{case.name}: {ours:.2e}, regret {value:+.1%}", file=sys.stderr, flush=True)


def both_seeds(case: Case, kept: Kept) -> dict[float, float]:
    """The mean losses of the best peaks of the grid, which have all seeds."""
    losses = grid(case, kept, SEEDS[:1])
    nearest = sorted(losses, key=losses.__getitem__)[:3]
    return {peak_at(at): kept.mean(case, peak_at(at), SEEDS) for at in nearest}


def interpolated_regret(case: Case, kept: Kept, rate: float) -> float:
    """The regret of ``rate`` by the grid of the first seed: a parabola in the logarithms through the three nearest peaks."""
    losses = grid(case, kept, SEEDS[:1])
    points = sorted((math.log(peak_at(at)), math.log(loss)) for at, loss in losses.items())
    place = min(max(math.log(rate), points[0][0]), points[-1][0])
    peaks, values = zip(*sorted(points, key=lambda point: abs(point[0] - place))[:3], strict=True)
    value = float(np.polyval(np.polyfit(peaks, values, 2), place))
    return math.exp(value - min(value for _, value in points)) - 1


def regret(case: Case, kept: Kept, rule: str, rates: dict[str, float]) -> float:
    """The regret of a rule; one that finds no rate falls back to the default peak."""
    rate = ORIGIN if rule == ALWAYS else rates.get(rule, ORIGIN)
    if rule == "lr-find" and all(kept.has(case, rate, case.updates, seed) for seed in SEEDS):
        return kept.mean(case, rate, SEEDS) / min(both_seeds(case, kept).values()) - 1
    return interpolated_regret(case, kept, rate)


def print_tables(kept: Kept, folder: Path) -> None:
    """The rules on each group of cases, then each case."""
    found = json.loads((folder / "found.json").read_text())
    for title, group in GROUPS.items():
        cases = [case for case in group if case.name in found]
        if cases:
            print_rules(f"{len(cases)} {title}", cases, kept, found)
            inside = sum(covered(case, kept, found[case.name]["result"]) for case in cases)
            print(f"\nThe interval holds the best peak in {inside} of {len(cases)} cases.")
    header = ("case", "best of the grid", "lr-find", "regret", "prior", "valley", "cost in updates")
    print(f"\n| {' | '.join(header)} |\n{'| --- ' * len(header)}|")
    for case in CASES:
        if case.name in found:
            print_case(case, kept, found[case.name])


def covered(case: Case, kept: Kept, result: dict[str, Any]) -> bool:
    """Whether the vertex of the parabola through the grid's best peaks is in the interval that was found."""
    vertex, _ = lowest([Candidate(peak, 0, loss) for peak, loss in both_seeds(case, kept).items()])
    return bool(result["low"] <= vertex <= result["high"])


def print_rules(title: str, cases: list[Case], kept: Kept, found: dict[str, Any]) -> None:
    """The regrets of each rule over ``cases``."""
    print(f"\n{title}\n\n| rule | median regret | 90% of the cases | worst | within 3% |")
    print("| --- " * 5 + "|")
    for rule in RULES:
        values = sorted(regret(case, kept, rule, found[case.name]["rates"]) for case in cases)
        ninth = values[math.ceil(0.9 * len(values)) - 1]
        within = sum(value <= 0.03 for value in values)
        cells = f"{statistics.median(values):.1%} | {ninth:.1%} | {values[-1]:.1%}"
        print(f"| {rule.replace('_', ' ')} | {cells} | {within} of {len(values)} |")


def print_case(case: Case, kept: Kept, found: dict[str, Any]) -> None:
    """One row of the table of the cases."""
    rates, best = found["rates"], both_seeds(case, kept)
    value = regret(case, kept, "lr-find", rates)
    shown = [f"{rates[rule]:.1e}" for rule in ("prior", "valley")]
    ours = f"{rates['lr-find']:.1e} | {value:+.1%}"
    best_peak = min(best, key=best.__getitem__)
    print(f"| {case.name} | {best_peak:.1e} | {ours} | {' | '.join(shown)} | {found['cost']:.0f} |")


STEPS = ("grid", "find", "train", "table")


def chosen_step(steps: Sequence[str], description: str) -> tuple[str, Path, Kept]:
    """The step that the command line names, and the folder with models, data and kept results, ready for it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("step", choices=steps)
    parser.add_argument("--folder", type=Path, required=True, help="models, data and kept results")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    prepare_folder(given.folder)
    return given.step, given.folder, Kept(given.folder)


def main() -> None:
    """Run one of the steps; all but the last are resumable."""
    step, folder, kept = chosen_step(STEPS, __doc__)
    if step == "grid":
        train_grids(kept)
    elif step == "find":
        search_all(folder)
    elif step == "train":
        train_found(kept, folder)
    else:
        print_tables(kept, folder)


if __name__ == "__main__":
    main()
