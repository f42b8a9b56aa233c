"""Can the end of a run be forecast from its first half, by the multi-power law?

    python benchmarks/labelled_runs.py --out /tmp/labelled --runs 320
    python benchmarks/forecast.py /tmp/labelled [--at 0.5]

The law (Luo et al., 2025, arXiv 2503.12811) gives the loss after t updates at rates e(1), ..., e(t), here divided by the peak::

    L(t) = L0 + A * (S(1, t) + s0) ** -alpha - B * sum over k of (e(k-1) - e(k)) * G(e(k) ** -gamma * S(k, t))
    G(x) = 1 - (1 + C * x) ** -beta          S(k, t) = e(k) + ... + e(t)

L0, A and B >= 0 are fitted to each run, by least squares of the relative error of what it recorded up to the time of the forecast
(validation losses, and training losses in bins, with an L0 of their own). alpha, beta, gamma, C and s0 are those with which the
healthy runs with an even number are forecast best; the table is of those with an odd number. "fitted to each run" takes the
constants that fit what the run recorded best. The naive forecast is the last validation loss; "line" goes on along the last two.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlxsched.runs.recording import read_recording

Floats = NDArray[np.float64]
Constants = tuple[float, float, float, float, float]
GRID: tuple[Constants, ...] = tuple(
    itertools.product(
        (0.25, 0.5, 0.75, 1.0, 1.5), (0.5, 1.0), (0.0, 0.5, 1.0), (0.01, 0.1, 1.0), (2.0, 10.0, 40.0)
    )
)
BINS = 12  # of training losses
ALLOWED = 0.03  # relative error of a good forecast


@dataclass(frozen=True)
class Run:
    """Rates over the peak ``[updates]``, training losses, and updates and values of the evaluations."""

    name: str
    rates: Floats
    losses: Floats
    seen_at: Floats
    seen: Floats


def read_run(path: Path) -> Run | None:
    """The run in ``path``; None if it has fewer than five evaluations or its losses are not finite."""
    recording = read_recording(path)
    train, evaluations = recording.train, recording.evaluations
    rates = train["lr"] / max(train["lr"].max(), 1e-30)
    run = Run(path.name, rates, train["loss"], evaluations["update"].astype(float), evaluations["loss"])
    return run if len(run.seen) >= 5 and bool(np.isfinite([*run.losses, *run.seen]).all()) else None


def features(rates: Floats, at: Floats) -> Floats:
    """The two terms of the law after ``at`` updates with each of `GRID`, ``[constants, points, 2]``."""
    sums = np.concatenate([[0.0], np.cumsum(rates)])
    falls = -np.diff(rates, prepend=0.0)
    falls[: int(rates.argmax()) + 1] = 0.0  # the warmup is no decay
    places = at.astype(int)
    since = np.maximum(sums[places][:, None] - sums[:-1][None, :], 0.0)  # [points, updates]: S(k, t)
    decays = {
        constants: -(
            (1 - (1 + constants[2] * np.maximum(rates, 1e-3) ** -constants[1] * since) ** -constants[0])
            @ falls
        )
        for constants in {one[1:4] for one in GRID}
    }
    return np.stack(
        [np.stack([(sums[places] + one[4]) ** -one[0], decays[one[1:4]]], axis=1) for one in GRID]
    )


def points_until(run: Run, until: int) -> tuple[Floats, Floats, Floats]:
    """Places, losses, and 1 for training losses, of what was recorded in the first ``until`` updates."""
    bins = np.array_split(np.arange(until), min(BINS, until))
    known = run.seen_at <= until
    places = [*run.seen_at[known], *(float(np.mean(one)) for one in bins)]
    values = [*run.seen[known], *(float(np.median(run.losses[one])) for one in bins)]
    return np.array(places), np.array(values), np.array([0.0] * int(known.sum()) + [1.0] * len(bins))


def fit(columns: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Non-negative coefficients ``[constants, columns]`` with the least squared relative error, and that error.

    ``columns`` is ``[constants, points, columns]``. The best of all subsets of columns; a tiny ridge keeps each solvable.
    """
    scaled, width = columns / values[:, None], columns.shape[2]
    best, least = np.zeros((len(columns), width)), np.full(len(columns), np.inf)
    for chosen in (
        list(one) for count in range(1, width + 1) for one in itertools.combinations(range(width), count)
    ):
        part = scaled[:, :, chosen]
        squares = part.transpose(0, 2, 1) @ part
        squares += (1e-9 * np.trace(squares, axis1=1, axis2=2)[:, None, None] + 1e-12) * np.eye(len(chosen))
        found = np.linalg.solve(squares, part.sum(axis=1)[:, :, None])[:, :, 0]
        errors = ((np.einsum("gpc,gc->gp", part, found) - 1) ** 2).sum(axis=1)
        better = (found >= 0).all(axis=1) & (errors < least)
        least[better] = errors[better]
        best[better] = 0.0
        best[np.ix_(better, chosen)] = found[better]
    return best, least


def forecasts(run: Run, share: float) -> tuple[Floats, Floats]:
    """The forecast of the last validation loss with each of `GRID`, and the error of each fit."""
    places, values, training = points_until(run, int(share * len(run.rates)))
    terms = features(run.rates, np.array([*places, run.seen_at[-1]]))
    levels = np.broadcast_to(np.stack([1 - training, training], axis=1), (len(GRID), len(values), 2))
    coefficients, errors = fit(np.concatenate([levels, terms[:, :-1]], axis=2), values)
    return coefficients[:, 0] + (terms[:, -1] * coefficients[:, 2:]).sum(axis=1), errors


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--at", type=float, default=0.5, help="the share of the run after which it is forecast"
    )
    options = parser.parse_args()
    labels = json.loads((options.folder / "labels.json").read_text())
    names = [name for name, facts in labels.items() if facts["label"] == "healthy"]
    found = [
        read_run(options.folder / "runs" / name)
        for name in names
        if (options.folder / "runs" / name).is_dir()
    ]
    runs = [run for run in found if run is not None]
    ends = np.array([run.seen[-1] for run in runs])
    pairs = [forecasts(run, options.at) for run in runs]
    off = np.abs(np.array([one for one, _ in pairs]) / ends[:, None] - 1)  # [runs, constants]
    even = np.array([int(run.name[:3]) % 2 == 0 for run in runs])
    chosen = int(np.argmax((off[even] <= ALLOWED).mean(axis=0) - 1e-3 * np.median(off[even], axis=0)))
    own = off[np.arange(len(runs)), [int(np.argmin(error)) for _, error in pairs]]
    rows = {
        "last value": np.abs(np.array([_last(run, options.at) for run in runs]) / ends - 1),
        "line": np.abs(np.array([_line(run, options.at) for run in runs]) / ends - 1),
        f"multi-power law, constants {GRID[chosen]}": off[:, chosen],
        "multi-power law, fitted to each run": own,
    }
    _print(f"{(~even).sum()} runs with an odd number, forecast after {options.at:.0%} of their updates\n")
    _print("| forecast | within 3% | median error | 90% of the errors are below |")
    _print("| --- | ---: | ---: | ---: |")
    for name, errors in rows.items():
        one = errors[~even]
        _print(
            f"| {name} | {(one <= ALLOWED).mean():.0%} | {np.median(one):.1%} | {np.quantile(one, 0.9):.0%} |"
        )


def _last(run: Run, share: float) -> float:
    return float(run.seen[run.seen_at <= int(share * len(run.rates))][-1])


def _line(run: Run, share: float) -> float:
    known = run.seen_at <= int(share * len(run.rates))
    (before, last), (low, high) = run.seen[known][-2:], run.seen_at[known][-2:]
    return float(last + (last - before) / (high - low) * (run.seen_at[-1] - high))


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
