"""What a later run gains from states of frozen layers on disk: one epoch of the bundled model, filling and reusing.

    python benchmarks/kept_states.py [--rounds 3] [--updates 250]

In each round three trainings make the same updates of 8 rows, LoRA on the upper half of the layers: states in memory,
states into a new file, states from that file. CPU seconds, medians; the losses must be the same to the last bit.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mlxsched.platform.blas import preload

preload()

from mlxsched.config import RunConfig  # noqa: E402  after the BLAS
from mlxsched.runs.events import Event, UpdateMade  # noqa: E402
from mlxsched.training.run import create_run, start  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402


def train(run_path: Path, updates: int, cache: Path | None) -> tuple[float, float, list[float]]:
    """CPU seconds of the start and of the first ``updates`` updates, and their losses."""
    gc.collect()  # the training before lets go of its states
    memory = 512_000_000 if cache is None else 1000
    config = RunConfig(num_layers=2, batch_size=8, epochs=2, prefix_cache=memory, val_batches=0, test=False)
    session = prepare(config, cache=cache)
    losses: list[float] = []
    run = create_run(session, run_path)
    with run.lock():
        started = time.process_time()
        loop, _ = start(session, run, _collect(losses))
        begun = time.process_time()
        for _ in range(updates):
            loop.step()
    return begun - started, time.process_time() - begun, losses


def _collect(losses: list[float]) -> Callable[[Event], None]:
    def see(event: Event) -> None:
        if isinstance(event, UpdateMade):
            losses.append(event.loss)

    return see


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=250)
    arguments = parser.parse_args()
    ways = ("in memory", "into a file", "from the file")
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            states = Path(folder) / f"states-{turn}"
            results = [
                train(Path(folder) / f"run-{turn}-{number}", arguments.updates, states if number else None)
                for number in range(len(ways))
            ]
            if any(losses != results[0][2] for _, _, losses in results):
                raise SystemExit("the losses differ")
            for way, (start, updates, _) in zip(ways, results, strict=True):
                seconds[way].append((start, updates))
    for way, times in seconds.items():
        start, updates = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"states {way:13}  start {start:5.2f} s  {arguments.updates} updates {updates:6.2f} s")
    print("losses: the same to the last bit")


if __name__ == "__main__":
    main()
