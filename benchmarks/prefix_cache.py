"""What a later run gains from frozen-prefix activations on disk: one epoch of the bundled model.

    python benchmarks/prefix_cache.py [--rounds 3] [--updates 250]

In each round three runs make the same updates of 8 rows, with LoRA on the upper half of the layers: the first keeps the
activations in memory, the second writes them to a new file, the third reads that file. Prints medians of CPU seconds.
Fails if the losses are not identical to the last bit.
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
from mlxsched.training.run import create_run, sinks_of, start  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402


def train(run_path: Path, updates: int, cache: Path | None) -> tuple[float, float, list[float]]:
    """CPU seconds of the start and of the first ``updates`` updates, and the losses of these updates."""
    gc.collect()  # frees the activations of the previous run
    memory = 512_000_000 if cache is None else 1000
    config = RunConfig(num_layers=2, batch_size=8, epochs=2, prefix_cache=memory, val_batches=0, test=False)
    session = prepare(config, cache=cache)
    losses: list[float] = []
    run = create_run(session, run_path)
    with run.lock():
        started = time.process_time()
        loop, _ = start(session, run, sinks_of(run, _collect(losses)))
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
    modes = ("in memory", "to a file", "from the file")
    seconds: dict[str, list[tuple[float, float]]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(arguments.rounds):
            cache = Path(folder) / f"cache-{turn}"
            results = [
                train(Path(folder) / f"run-{turn}-{number}", arguments.updates, cache if number else None)
                for number in range(len(modes))
            ]
            if any(losses != results[0][2] for _, _, losses in results):
                raise SystemExit("the losses differ")
            for mode, (start, updates, _) in zip(modes, results, strict=True):
                seconds[mode].append((start, updates))
    for mode, times in seconds.items():
        start, updates = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"activations {mode:13}  start {start:5.2f} s  {arguments.updates} updates {updates:6.2f} s")
    print("losses: identical to the last bit")


if __name__ == "__main__":
    main()
