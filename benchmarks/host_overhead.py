"""How much of an update is our own Python: updates through the training loop compared with the engine alone.

Both make the same updates on the same rows, alternating. The measure is the CPU time of this process, so other
processes on the machine hardly matter. Run it with `OPENBLAS_NUM_THREADS=1 python benchmarks/host_overhead.py`.
Targets: under 15% for the bundled model, under 3% for a Llama of 135M parameters.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mlxsched.platform import blas

blas.preload()

from mlxsched.bench.shapes import config_of, random_model  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.model.load import LoadedModel, load_model  # noqa: E402
from mlxsched.training.loop import Loop  # noqa: E402
from mlxsched.training.run import create_run, sinks_of, start  # noqa: E402
from mlxsched.training.session import Session, prepare  # noqa: E402

NEVER = 10**6


def make_session(name: str, batch_size: int) -> Session:
    """A run on the bundled rows that neither saves nor evaluates before its end."""
    flags: dict[str, Any] = {"epochs": 20, "batch_size": batch_size, "val_batches": 0, "test": False}
    flags |= {"save_every": NEVER, "steps_per_eval": NEVER, "warmup": 0}
    loaded = load_config(flags=flags)
    return prepare(
        loaded.config, loaded.origins, loaded=load_model("tiny") if name == "tiny" else random_llama()
    )


def random_llama() -> LoadedModel:
    """A Llama of 135M parameters with random weights; its vocabulary is larger than the bundled tokenizer's."""
    config = config_of("llama-135m")
    return replace(load_model("tiny"), name="llama-135m", model=random_model(config), config=config)


def timed(count: int, work: Callable[[], None]) -> tuple[float, float]:
    """CPU and wall-clock seconds per call, over ``count`` calls."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        work()
    return (time.process_time() - cpu) / count, (time.perf_counter() - wall) / count


class Bare:
    """The engine of ``loop`` alone, on the batches of the loop's next updates, prepared in advance."""

    def __init__(self, loop: Loop, count: int) -> None:
        self._engine = loop.engine
        first = loop.progress.update
        self._batches = iter([loop.loader(first + i) for i in range(count)])

    def __call__(self) -> None:
        self._engine.update(next(self._batches), 1e-5).wait()


def measure(name: str, batch_size: int, block: int, rounds: int) -> None:
    """Print the share of the loop's CPU time that the engine alone doesn't need."""
    shares, updates = [], []
    with tempfile.TemporaryDirectory() as directory:
        session = make_session(name, batch_size)
        run = create_run(session, Path(directory) / "run")
        loop, _ = start(session, run, sinks_of(run))
        update = loop.step

        timed(2 * block, update)  # trace and compile
        for _ in range(rounds):
            bare_cpu, _ = timed(block, Bare(loop, block))
            loop_cpu, _ = timed(block, update)
            shares.append(1 - bare_cpu / loop_cpu)
            updates.append(loop_cpu)
    quartiles = statistics.quantiles(shares, n=4)
    print(
        f"{name:12} batch {batch_size}: {statistics.median(updates) * 1e3:8.2f} ms per update, "
        f"host share {quartiles[1]:6.1%} ({quartiles[0]:.1%} to {quartiles[2]:.1%})"
    )


def main() -> None:
    """Measure the models named on the command line, or both by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["tiny", "llama-135m"])
    for name in parser.parse_args().models:
        if name == "tiny":
            measure(name, batch_size=8, block=40, rounds=9)
        else:
            measure(name, batch_size=4, block=4, rounds=5)


if __name__ == "__main__":
    main()
