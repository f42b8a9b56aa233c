"""What frozen-prefix activations cost in the first epoch and gain in later ones, and what a later run gains: the bundled model.

    python benchmarks/prefix_cache.py [--rounds 3] [--updates 60]

In each round four runs train for two epochs of so many updates of 8 rows, with LoRA on the upper half of the layers: without stored
activations, with them in memory, in a new file, and in the file that the run before left. Prints medians of CPU seconds; "start" is the
first sixth of the first epoch. Fails if the losses of the runs with activations are not identical to the last bit, or
differ from those without by more than rounding.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mlxsched.platform.blas import preload

preload()

from mlxsched.bench.synthetic import picked_rows  # noqa: E402  after the BLAS
from mlxsched.config import RunConfig  # noqa: E402
from mlxsched.data import Dataset  # noqa: E402
from mlxsched.runs.events import Event, UpdateMade  # noqa: E402
from mlxsched.training.run import create_run, sinks_of, start  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

ROWS = 8
MODES = {"none": 0, "in memory": 512_000_000, "to a file": 1000, "from the file": 1000}


def train(
    run_path: Path, dataset: Dataset, memory: int, cache: Path | None
) -> tuple[list[float], list[float]]:
    """CPU seconds at the end of each update, from 0 for the beginning of the first, and the losses."""
    gc.collect()  # frees the activations of the previous run
    config = RunConfig(
        num_layers=2, batch_size=ROWS, epochs=2, prefix_cache=memory, val_batches=0, test=False, packing=False
    )
    session = prepare(config, dataset=dataset, cache=cache)
    losses: list[float] = []
    run = create_run(session, run_path)
    with run.lock():
        loop, _ = start(session, run, sinks_of(run, _collect(losses)))
        seconds = [time.process_time()]
        for _ in range(session.plan.updates):
            loop.step()
            seconds.append(time.process_time())
    return [moment - seconds[0] for moment in seconds], losses


def _collect(losses: list[float]) -> Callable[[Event], None]:
    def see(event: Event) -> None:
        if isinstance(event, UpdateMade):
            losses.append(event.loss)

    return see


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=60)
    arguments = parser.parse_args()
    updates = arguments.updates
    whole = prepare(RunConfig(test=False)).dataset
    dataset = replace(whole, splits={"train": picked_rows(whole.splits["train"], ROWS * updates)})
    seconds: dict[str, list[list[float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            found: dict[str, list[float]] = {}
            for mode, memory in MODES.items():
                cache = Path(folder) / f"cache-{turn}" if "file" in mode else None
                times, found[mode] = train(Path(folder) / f"run-{turn}-{mode}", dataset, memory, cache)
                seconds[mode].append([times[updates // 6], times[updates], times[-1] - times[updates]])
            if not found["in memory"] == found["to a file"] == found["from the file"]:
                raise SystemExit("the losses differ")
            np.testing.assert_allclose(found["in memory"], found["none"], rtol=1e-4)
    print("| activations | start | first epoch | second epoch |\n| --- | --- | --- | --- |")
    for mode, rounds in seconds.items():
        begun, first, second = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {mode} | {begun:.2f} | {first:.2f} | {second:.2f} |")


if __name__ == "__main__":
    main()
