"""Averages of a constant-rate run against decays, and the mean of the factors against the mean of the products.

    python benchmarks/experiments_averaging.py [--seeds 0 1 2 3] [--keep numbers.json]

Three runs of 200 updates per seed and peak: a constant rate after the warmup, a linear decay to zero, and WSD with a
1-sqrt decay over the last fifth. All averages are of the same constant-rate run, so they cost no updates. Each method is
judged at its own best peak.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from experiments import PEAKS, UPDATES, WARMUP, Trials, each_seed, options, shown, table

from mlxsched.model.averaging import mean_of_factors, mean_of_products
from mlxsched.model.trees import Tensors
from mlxsched.schedules import warmup_constant, warmup_linear, wsd
from mlxsched.training.averaging import merge_weights

WINDOWS = (20, 40, 80, 120)
DECAYS = (0.9, 0.95, 0.98, 0.99)
POINTS = 5
FEWER_OR_MORE = (3, 9, 17)
RUNS = {
    "constant": lambda peak: warmup_constant(peak, WARMUP),
    "linear": lambda peak: warmup_linear(peak, UPDATES, WARMUP),
    "wsd": lambda peak: wsd(peak, UPDATES, WARMUP, 0.2),
}


def measure(trials: Trials) -> dict[str, float]:
    """The validation loss of every method at every peak, and the errors of the products."""
    found: dict[str, float] = {}
    for peak in PEAKS:
        for name, make in RUNS.items():
            losses = run_and_average(trials, make(peak), everything=name == "constant")
            found |= {f"{name}, {key}@{peak:g}": loss for key, loss in losses.items()}
    return found


def run_and_average(trials: Trials, rate: Callable[[int], float], *, everything: bool) -> dict[str, float]:
    """One run, its last loss, and the losses of averages of its points."""
    points: dict[int, Tensors] = {}

    def see(update: int) -> None:
        points[update] = trials.tensors()

    found = {"last": trials.loss(trials.train(rate, 0, UPDATES, trials.start, see))}
    if not everything:
        return found | merged(trials, points, 40, POINTS, products=False)
    for decay in DECAYS:
        weights = [(1 - decay) * decay ** (UPDATES - update) / (1 - decay**UPDATES) for update in points]
        found[f"ema:{decay:g}"] = trials.loss(mean_of_factors(list(points.values()), weights))
    for window in WINDOWS:
        found |= merged(trials, points, window, POINTS)
    for count in FEWER_OR_MORE:
        found |= merged(trials, points, 80, count)
    return found


def merged(
    trials: Trials, points: dict[int, Tensors], window: int, count: int, *, products: bool = True
) -> dict[str, float]:
    """The losses of both means of `count` points of the last `window` updates, and the errors of the products."""
    spaced = [UPDATES - window + round(index * window / (count - 1)) for index in range(count)]
    chosen = [points[update] for update in spaced]
    found = {}
    for name, weights in (
        ("last", [1 / count] * count),
        ("merge:1-sqrt", merge_weights(spaced, "1-sqrt")),
    ):
        key = f"{name}:{count} over {window}"
        found[key] = trials.loss(mean_of_factors(chosen, weights))
        if products:
            mean, error = mean_of_products(chosen, weights)
            found[f"{key}, products"] = trials.loss(mean)
            found[f"{key}, error"] = error
    return found


def best(results: list[dict[str, float]], method: str) -> tuple[float, list[float]]:
    """The peak at which a method is best on average, and its losses there, seed by seed."""
    at = {peak: [one[f"{method}@{peak:g}"] for one in results] for peak in PEAKS}
    peak = min(PEAKS, key=lambda peak: statistics.fmean(at[peak]))
    return peak, at[peak]


def main() -> None:
    """Print the table of methods, and that of factors against products."""
    results = list(each_seed(options(__doc__.splitlines()[0]), measure))
    keys = [key.rsplit("@", 1)[0] for key in results[0] if key.endswith(f"@{PEAKS[0]:g}")]
    plain = [key for key in keys if not key.endswith(("error", "products"))]
    decayed = best(results, "wsd, last")[1]
    rows = []
    for method in sorted(plain, key=lambda key: statistics.fmean(best(results, key)[1])):
        peak, losses = best(results, method)
        difference = shown([a - b for a, b in zip(losses, decayed, strict=True)], signed=True)
        means = [statistics.fmean([one[f"{method}@{at:g}"] for one in results]) for at in PEAKS]
        rows.append([method, f"{peak:g}", shown(losses), difference, *(f"{mean:.4f}" for mean in means)])
    table(
        ["method", "best peak", "validation loss", "less that of wsd", *(f"at {at:g}" for at in PEAKS)], rows
    )
    print()
    table(["average", "peak", "products less factors", "cut off by the rank"], list(products(results, keys)))


def products(results: list[dict[str, float]], keys: list[str]) -> list[list[str]]:
    """The paired difference of the two means, for the plain mean of 5 points at each peak."""
    rows = []
    for key in [key for key in keys if f"last:{POINTS}" in key and key.endswith("products")]:
        for peak in PEAKS:
            factors = key.removesuffix(", products")
            pairs = [(one[f"{key}@{peak:g}"], one[f"{factors}@{peak:g}"]) for one in results]
            cut = math.fsum(one[f"{factors}, error@{peak:g}"] for one in results) / len(results)
            difference = shown([a - b for a, b in pairs], signed=True)
            rows.append([factors, f"{peak:g}", difference, f"{cut:.1%}"])
    return rows


if __name__ == "__main__":
    main()
