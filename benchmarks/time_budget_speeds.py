"""--max-time on a machine whose speed changes severalfold: real training on the bundled model, with a simulated clock.

    python benchmarks/time_budget_speeds.py                            all patterns and shapes, about 5 minutes
    python benchmarks/time_budget_speeds.py --updates 80 --shapes wsd  some of them, shorter

By the clock, an average update takes one second, times the factor of the pattern while the machine is slow. So two versions
make nearly the same number of updates, and differ only in their rates. The mean rate is compared with that of the
same shape planned for the updates that were made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from mlxsched.config import load_config
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import UpdateMade
from mlxsched.schedules import from_dict
from mlxsched.training.assembly import work_of
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import Action
from mlxsched.training.policies.time_budget import Budget, TimeBudget
from mlxsched.training.progress import Progress
from mlxsched.training.run import create_run, sinks_of, start
from mlxsched.training.session import Session, prepare
from mlxsched.training.timing import Work

PATTERNS = {
    "steady": (0.0, 0.0, 1.0),
    "20 times as slow for the first fifth": (0.0, 0.2, 20.0),
    "8 times as slow for the first half": (0.0, 0.5, 8.0),
    "10 times as slow from 30% to 60%": (0.3, 0.6, 10.0),
}
"""When the machine is slow, from and to, as shares of the budget; and by which factor."""


class Simulated(TimeBudget):
    """A time budget with a clock of its own, which the updates advance."""

    def __init__(self, seconds: float, slow: tuple[float, float, float], pace: Pace, work: Work) -> None:
        self.seconds, self.tokens, self.slow, self.time = seconds, work.tokens, slow, 0.0
        super().__init__(Budget(seconds, started=0.0), pace, work, clock=lambda: self.time)

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        low, high, factor = self.slow
        slowed = low <= self.time / self.seconds < high
        self.time += made.tokens / self.tokens * (factor if slowed else 1.0)
        yield from super().after_update(progress, made)


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=300, help="made by a machine that is never slow")
    parser.add_argument("--shapes", nargs="*", default=["linear", "cosine", "wsd"], help="the schedules")
    options = parser.parse_args()
    _print("| machine | schedule | updates | mean rate / peak | as planned for them | validation loss |")
    _print("| --- | --- | ---: | ---: | ---: | ---: |")
    first = prepare(load_config().config)
    for name in PATTERNS:
        for shape in options.shapes:
            _print(f"| {name} | {shape} | {measure(first, options.updates, shape, name)} |")


def measure(first: Session, seconds: float, shape: str, pattern: str) -> str:
    """One run of the model and the data of ``first``: the cells of its row."""
    flags = {"max_time": seconds, "schedule": shape, "val_batches": 8, "batch_size": 4, "test": False}
    loaded = load_config(flags=flags)
    session = prepare(loaded.config, loaded.origins, loaded=first.loaded, dataset=first.dataset)
    with tempfile.TemporaryDirectory() as scratch:
        run = create_run(session, Path(scratch) / "run")
        with run.lock():
            loop, _ = start(session, run, sinks_of(run))
            work = replace(work_of(session), evaluate_every=None)
            loop.policies[0] = Simulated(seconds, PATTERNS[pattern], loop.pace, work)
            loop.run()
        records = RunDirectory.open(run.path).read_metrics()
        schedule = from_dict(run.info.plan["schedule"])
    rates = [float(record["lr"]) for record in records if record["kind"] == "train"]
    loss = [float(record["loss"]) for record in records if record["kind"] == "eval"][-1]
    made, planned = len(rates), schedule.steps or 1
    ideal = sum(float(schedule(planned * update // made)) for update in range(made))
    peak = made * float(schedule.extrema().high)
    return f"{made} | {sum(rates) / peak:.2f} | {ideal / peak:.2f} | {loss:.3f}"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
