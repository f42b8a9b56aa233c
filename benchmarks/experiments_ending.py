"""A cooldown after an interruption against stopping at once; one trunk with branches against separate runs.

    python benchmarks/experiments_ending.py [--seeds 0 1 2] [--keep numbers.json]

Both use runs of 200 updates at a peak of 1e-3, the best one of the linear and the WSD schedule in
experiments_averaging.py. The first table interrupts a constant-rate and a linear run at 30, 50 and 70% and compares what
can be done then; the second trains to three lengths.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments import UPDATES, WARMUP, Trials, each_seed, options, shown, table

from mlxsched.model.averaging import mean_of_factors
from mlxsched.model.trees import Tensors
from mlxsched.schedules import cooldown, warmup_constant, warmup_linear, wsd
from mlxsched.training.averaging import merge_weights
from mlxsched.training.engine import Snapshot

PEAK = 1e-3
STOPS = (60, 100, 140)
COOLDOWN = 20
BUDGETS = (50, 100, 200)
DECAY = 0.2
WINDOW = 40
RUNS = {"constant": warmup_constant(PEAK, WARMUP), "linear": warmup_linear(PEAK, UPDATES, WARMUP)}
BRANCHES = [budget - round(DECAY * budget) for budget in BUDGETS]


def measure(trials: Trials) -> dict[str, float]:
    """Every loss of one seed."""
    found: dict[str, float] = {}
    trunk: dict[int, Snapshot] = {}
    for name, rate in RUNS.items():
        marks, points = run(trials, rate)
        for stop in STOPS:
            found |= interrupted(trials, f"{name}@{stop}", rate, marks, points)
        found[f"{name}, whole"] = trials.loss(marks[UPDATES])
        trunk = marks if name == "constant" else trunk
    return found | lengths(trials, trunk)


def run(trials: Trials, rate: Callable[[int], float]) -> tuple[dict[int, Snapshot], dict[int, Tensors]]:
    """One run: its snapshots where it is stopped or branched, and the parameters after every update."""
    marks = sorted({*STOPS, *(stop + COOLDOWN for stop in STOPS), *BRANCHES, UPDATES})
    snapshots: dict[int, Snapshot] = {}
    points: dict[int, Tensors] = {}
    done, state = 0, trials.start
    for mark in marks:
        state = trials.train(
            rate, done, mark, state, lambda update: points.update({update: trials.tensors()})
        )
        snapshots[mark], done = state, mark
    return snapshots, points


def interrupted(
    trials: Trials,
    name: str,
    rate: Callable[[int], float],
    marks: dict[int, Snapshot],
    points: dict[int, Tensors],
) -> dict[str, float]:
    """What can be done with a run that ends at a stop."""
    stop = int(name.rpartition("@")[2])
    spaced = [stop - WINDOW + WINDOW // 4 * index for index in range(5)]
    chosen = [points[update] for update in spaced]
    cooled = trials.train(cooldown(rate, stop, COOLDOWN), stop, stop + COOLDOWN, marks[stop])
    return {
        f"{name}, stop at once": trials.loss(marks[stop]),
        f"{name}, go on for {COOLDOWN} updates": trials.loss(marks[stop + COOLDOWN]),
        f"{name}, cooldown of {COOLDOWN} updates": trials.loss(cooled),
        f"{name}, last:5 over {WINDOW}, no more updates": trials.loss(mean_of_factors(chosen, [0.2] * 5)),
        f"{name}, merge:linear:5 over {WINDOW}, no more updates": trials.loss(
            mean_of_factors(chosen, merge_weights(spaced, "linear"))
        ),
    }


def lengths(trials: Trials, trunk: dict[int, Snapshot]) -> dict[str, float]:
    """Branches of the constant-rate run, and a separate linear run for each length.

    Separate WSD runs need no training: they are the branches, bit for bit (tests/experiments/test_trunk.py).
    """
    found = {}
    for budget, branch in zip(BUDGETS, BRANCHES, strict=True):
        schedule = wsd(PEAK, budget, WARMUP, DECAY)
        found[f"branch@{budget}"] = trials.loss(trials.train(schedule, branch, budget, trunk[branch]))
        if budget < UPDATES:
            linear = warmup_linear(PEAK, budget, WARMUP)
            found[f"separate linear@{budget}"] = trials.loss(trials.train(linear, 0, budget, trials.start))
    return found


def main() -> None:
    """Print both tables."""
    results = list(each_seed(options(__doc__.splitlines()[0]), measure))
    table(["run", "stopped at", "then", "validation loss", "less stopping at once"], stops(results))
    print()
    table(["length", "method", "validation loss", "updates spent for all lengths"], budgets(results))


def stops(results: list[dict[str, float]]) -> list[list[str]]:
    """The rows of the first table."""
    rows = []
    for name in RUNS:
        for stop in STOPS:
            at_once = [one[f"{name}@{stop}, stop at once"] for one in results]
            for key in [key for key in results[0] if key.startswith(f"{name}@{stop}, ")]:
                losses = [one[key] for one in results]
                gain = shown([a - b for a, b in zip(losses, at_once, strict=True)], signed=True)
                then = key.partition(", ")[2]
                rows.append([name, f"{stop}", then, shown(losses), "" if then == "stop at once" else gain])
        rows.append([name, "never", "all 200 updates", shown([one[f"{name}, whole"] for one in results]), ""])
    return rows


def budgets(results: list[dict[str, float]]) -> list[list[str]]:
    """The rows of the second table."""
    decays = [budget - branch for budget, branch in zip(BUDGETS, BRANCHES, strict=True)]
    spent = {"trunk and branches": max(BRANCHES) + sum(decays), "separate linear runs": sum(BUDGETS)}
    rows = []
    for budget in BUDGETS:
        linear = "linear, whole" if budget == UPDATES else f"separate linear@{budget}"
        for method, key in (("trunk and branches", f"branch@{budget}"), ("separate linear runs", linear)):
            rows.append([f"{budget}", method, shown([one[key] for one in results]), f"{spent[method]}"])
    return rows


if __name__ == "__main__":
    main()
