"""What the experiments of docs/experiments.md share: short trainings of the bundled model, without a disk.

Each seed is another initialization of A and another order of the rows. Within a seed all trials see the same rows in
the same order, so differences between them are paired.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlxsched.analysis.intervals import interval
from mlxsched.config import load_config
from mlxsched.model.trees import Tensors, unflatten
from mlxsched.text import clock
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, make_pace
from mlxsched.training.engine import Snapshot
from mlxsched.training.session import prepare

UPDATES, WARMUP = 200, 20
PEAKS = (5e-4, 1e-3, 2e-3)


class Trials:
    """Trainings from one seed: preset `lora`, 8 rows an update, all 200 validation rows, unless `settings` say otherwise."""

    def __init__(self, seed: int, **settings: Any) -> None:
        flags = {"seed": seed, "iters": UPDATES, "warmup": WARMUP, "test": False, **settings}
        loaded = load_config(preset="lora", flags=flags)
        session = prepare(loaded.config, loaded.origins)
        with tempfile.TemporaryDirectory() as directory:
            paths = accelerate(session, Path(directory), lambda text: None)
        self._engine = make_engine(session, paths.training)
        self._loader = make_loader(session, paths.training, make_pace(session))
        self._evaluate = make_evaluator(session, paths.validation)
        self.start = self._engine.snapshot()

    def train(
        self,
        rate: Callable[[int], float],
        first: int,
        last: int,
        start: Snapshot,
        see: Callable[[int], None] = lambda update: None,
    ) -> Snapshot:
        """Updates ``first`` to ``last`` - 1 from ``start``; ``see`` is called with the number of updates made so far."""
        self._engine.restore(start)
        self.losses: list[float] = []  # of the updates of this training
        for update in range(first, last):
            outcome = self._engine.update(self._loader(update), float(rate(update)))
            outcome.wait()
            self.losses.append(outcome.loss)
            see(update + 1)
        return self._engine.snapshot()

    def tensors(self) -> Tensors:
        """The present parameters."""
        return self._engine.tensors()

    def loss(self, of: Snapshot | Tensors | None = None) -> float:
        """The validation loss of a snapshot, of tensors, or of the present parameters."""
        if isinstance(of, Snapshot):
            self._engine.restore(of)
            of = None
        return self._evaluate(unflatten(of or self._engine.tensors())).loss


def shown(values: Sequence[float], *, signed: bool = False) -> str:
    """The mean of ``values`` and half the width of its 95% confidence interval by Student's t."""
    return interval(values).text(signed=signed)


def options(description: str) -> argparse.Namespace:
    """The options of an experiment: seeds, and a file that keeps the numbers of finished seeds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3])
    parser.add_argument("--keep", type=Path, help="JSON file; seeds that it holds are not trained again")
    return parser.parse_args()


def each_seed(
    given: argparse.Namespace, measure: Callable[[Trials], dict[str, float]]
) -> Iterator[dict[str, float]]:
    """The measurements of every seed, with the time left on stderr."""
    kept = json.loads(given.keep.read_text()) if given.keep and given.keep.exists() else {}
    started, trained = time.monotonic(), 0
    for number, seed in enumerate(given.seeds):
        if str(seed) not in kept:
            kept[str(seed)] = measure(Trials(seed))
            trained += 1
            left = (time.monotonic() - started) / trained * (len(given.seeds) - number - 1)
            print(f"seed {seed} done, about {clock(left)} left", file=sys.stderr, flush=True)
            if given.keep:
                given.keep.write_text(json.dumps(kept, indent=1))
        yield kept[str(seed)]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
