"""How the constants of `mlxsched lr-find` were chosen: on the even cases of rate_cases.py, and no others.

python benchmarks/rate_constants.py schedules --folder /tmp/rates  # seven cases with four schedules: where is the best peak?
python benchmarks/rate_constants.py search --folder /tmp/rates     # searches of each case with four seeds
python benchmarks/rate_constants.py mislead --folder /tmp/rates    # searches with a prior that is off by a factor of 5
python benchmarks/rate_constants.py table --folder /tmp/rates      # their regrets, for several values of the constants
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rate_cases import Case, Kept, even_cases
from rate_finder import BUDGET, SEEDS, chosen_step, grid, interpolated_regret, peak_at

from mlxsched.experiments.rate_finder import Budget, Search, estimate
from mlxsched.experiments.rate_finder.branches import Rounds
from mlxsched.experiments.rate_finder.layout import SECOND
from mlxsched.experiments.rate_finder.prior import Prior
from mlxsched.experiments.rate_finder.result import Candidate
from mlxsched.runs import atomic
from mlxsched.training.session import prepare

SEARCHES = range(4)  # seeds: other training rows and adapters
SCHEDULES = ("linear", "cosine", "wsd", "constant")
OTHERWISE_ALIKE = (
    "slim-orders-125-r32-s20-keys=qv",
    "short-orders-50-r64-s10",
    "short-orders-125-r16-s5-keys=qv",
    "short-excel-50-r8-s20-schedule=cosine",
    "slim-orders-50-r4-s5",
    "short-orders-125-r16-s20-schedule=wsd",
    "tiny-orders-50-r8-s20",
)
PRIOR_ERRORS = (1.0, 1.6)
"""Deviations of added errors of the prior: none, as on the cases that it was fitted to, and as on other cases."""
MISLED = (0.2, 5.0)
"""Factors on the prior."""
DRAWS = 7  # of errors of the prior, for each search


def vertex(case: Case, kept: Kept) -> float:
    """The best peak by the parabola through the three losses at the minimum of the grid."""
    losses = grid(case, kept, SEEDS)
    return estimate.lowest([Candidate(peak_at(at), 0, loss) for at, loss in losses.items()])[0]


def print_schedules(kept: Kept) -> None:
    """The best peak with each schedule, relative to that with a linear decay."""
    by_name = {case.name: case for case in even_cases()}
    ratios: dict[str, list[float]] = {schedule: [] for schedule in SCHEDULES}
    for name in OTHERWISE_ALIKE:
        more = {key: value for key, value in by_name[name].more.items() if key != "schedule"}
        # A linear decay is the default, and not part of the name of a case.
        cases = [dataclasses.replace(by_name[name], more=more)]
        cases += [dataclasses.replace(by_name[name], more={**more, "schedule": one}) for one in SCHEDULES[1:]]
        peaks = [vertex(case, kept) for case in cases]
        for schedule, peak in zip(SCHEDULES, peaks, strict=True):
            ratios[schedule].append(peak / peaks[0])
        print(name, *(f"{peak:.2e}" for peak in peaks), file=sys.stderr, flush=True)
    for schedule, values in ratios.items():
        print(f"{schedule}: {math.exp(statistics.fmean(map(math.log, values))):.2f} times as high as linear")


def search_all(folder: Path) -> None:
    """Search for each case with each seed."""
    for seed in SEARCHES:
        file = _file(folder, seed)
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        for case in even_cases():
            if case.name not in found:
                loaded = case.config(folder, seed=seed)
                searching = Search(prepare(loaded.config, loaded.origins), Budget(BUDGET))
                found[case.name] = {"result": searching.run().to_dict(), **searching.prior._asdict()}
                atomic.write_json(file, found)
                print(f"{seed} {case.name}", file=sys.stderr, flush=True)


def mislead_all(folder: Path) -> None:
    """Search with a prior that is far too low or too high, as it may be on other models."""
    file = folder / "misled.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    cases = [
        case for case in even_cases() if case.model in ("short", "slim") and "optimizer=sgd" not in case.name
    ]
    for factor in MISLED:
        for case in cases:
            if (key := f"{case.name}|{factor}") not in found:
                loaded = case.config(folder, seed=1)
                searching = Search(prepare(loaded.config, loaded.origins), Budget(BUDGET))
                searching.prior = searching.prior._replace(peak=factor * searching.prior.peak)
                found[key] = {"result": searching.run().to_dict(), **searching.prior._asdict()}
                atomic.write_json(file, found)
                print(key, file=sys.stderr, flush=True)


def print_misled(kept: Kept, folder: Path) -> None:
    """Regrets with a prior that is far off."""
    by_name = {case.name: case for case in even_cases()}
    found = json.loads((folder / "misled.json").read_text())
    for factor in MISLED:
        regrets, hidden = [], 0
        for key, one in found.items():
            if key.endswith(f"|{factor}"):
                case, rounds, prior = _search(by_name[key.split("|")[0]], one)
                hidden += not estimate.minimum(rounds)[1]
                regrets.append(interpolated_regret(case, kept, next(suggestions(case, rounds, prior, 0.0))))
        within = sum(value <= 0.03 for value in regrets)
        print(
            f"prior times {factor:g}: median {statistics.median(regrets):.1%}, {within} of {len(regrets)} within 3%, "
            f"worst {max(regrets):.1%}, {hidden} fits without a minimum"
        )


def _file(folder: Path, seed: int) -> Path:
    return folder / f"searches-{seed}.json"


def searches(folder: Path) -> Iterator[tuple[Case, Rounds, Prior]]:
    """The branches of each search, and its prior."""
    for seed in SEARCHES:
        found = json.loads(_file(folder, seed).read_text())
        for case in even_cases():
            yield _search(case, found[case.name])


def _search(case: Case, one: dict[str, Any]) -> tuple[Case, Rounds, Prior]:
    tried = [Candidate(**values) for values in one["result"]["candidates"]]
    return case, Rounds(tried[:-SECOND], tried[-SECOND:]), Prior(one["peak"], one["spread"])


def print_fit(kept: Kept, folder: Path) -> None:
    """How far the best branch and the fit are from the best peak, as factors."""
    errors: dict[str, list[float]] = {"the second round": [], "both rounds": []}
    for case, rounds, _ in searches(folder):
        best, optimizer = vertex(case, kept), case.more.get("optimizer", "adamw")
        share = rounds.second[0].updates / case.updates
        second = estimate.at_length(rounds.best, share, optimizer)
        for name, peak in (
            ("the second round", second),
            ("both rounds", rounds.for_run(case.updates, optimizer)[0]),
        ):
            errors[name].append(math.log(best / peak))
    for name, values in errors.items():
        mean, deviation = math.exp(statistics.fmean(values)), math.exp(statistics.pstdev(values))
        print(f"best peak by {name}: mean factor {mean:.2f}, deviation {deviation:.2f}")


def print_constants(kept: Kept, folder: Path) -> None:
    """Regrets for values of the correction for the length, and of a factor on the result."""
    tried = list(searches(folder))
    print(
        "\n| error of the prior | horizon | factor | median | 90% of the searches | within 3% |\n"
        + "| --- " * 6
        + "|"
    )
    for error in PRIOR_ERRORS:
        for horizon in (0.1, 0.15, 0.2, 0.25):
            estimate.HORIZON = horizon
            for factor in (1.0, 0.95, 0.9, 0.85):
                values = sorted(
                    interpolated_regret(case, kept, factor * peak)
                    for case, rounds, prior in tried
                    for peak in suggestions(case, rounds, prior, math.log(error))
                )
                ninth = values[math.ceil(0.9 * len(values)) - 1]
                within = sum(value <= 0.03 for value in values) / len(values)
                cells = f"{statistics.median(values):.1%} | {ninth:.1%} | {within:.0%}"
                print(f"| {error} | {horizon} | {factor} | {cells} |")


def suggestions(case: Case, rounds: Rounds, prior: Prior, error: float) -> Iterator[float]:
    """What a search suggests if the prior is off by quantiles of ``error``."""
    best, sure = rounds.for_run(case.updates, case.more.get("optimizer", "adamw"))
    for draw in range(DRAWS if error else 1):
        off = error and error * statistics.NormalDist().inv_cdf((draw + 0.5) / DRAWS)
        yield estimate.estimate(prior._replace(peak=prior.peak * math.exp(off)), best, sure).peak


def main() -> None:
    """Run one of the steps; all but the last are resumable."""
    step, folder, kept = chosen_step(("schedules", "search", "mislead", "table"), __doc__)
    if step == "schedules":
        print_schedules(kept)
    elif step == "search":
        search_all(folder)
    elif step == "mislead":
        mislead_all(folder)
    else:
        print_fit(kept, folder)
        print_misled(kept, folder)
        print_constants(kept, folder)


if __name__ == "__main__":
    main()
