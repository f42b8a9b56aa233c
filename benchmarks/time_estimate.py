"""How far is the estimated time of a run from the time that it takes?

    python benchmarks/time_estimate.py                  all cases
    python benchmarks/time_estimate.py --only lora      those whose name contains "lora"
    python benchmarks/time_estimate.py --json           JSON lines

Each case is estimated, trained to its end in the same process (evaluations, checkpoints, the test rows and the answers to them
included), and estimated again: other programs change the speed of a machine meanwhile. All is in seconds of CPU time (of all
threads of the process), which they change less than wall-clock time. So waiting for the disk is not in these figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from mlxsched.platform.blas import preload

preload()

from wikisql import SHARED  # noqa: E402

from mlxsched.config import load_config  # noqa: E402  after the BLAS
from mlxsched.runs.events import Event, RunStarted  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine  # noqa: E402
from mlxsched.training.estimate import Estimate, estimate  # noqa: E402
from mlxsched.training.run import create_run, execute  # noqa: E402
from mlxsched.training.session import Session, prepare  # noqa: E402

CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "laptop": ("laptop", {}),
    "lora, 400 updates": ("lora", {"iters": 400}),
    "full, 300 updates": ("full", {"iters": 300}),
    "one-cycle, batch 4": ("one-cycle", {"iters": 600, "batch_size": 4}),
    "wsd, no test": ("wsd", {"iters": 300, "test": False}),
    "2 of 4 layers, 2 epochs": (
        None,
        {"num_layers": 2, "epochs": 2.0, "batch_size": 16, "learning_rate": 1e-3},
    ),
    "many evaluations": ("lora", {"iters": 200, "steps_per_eval": 10, "test": False}),
    "padded, dropout": ("lora", {"iters": 250, "packing": False, "lora_parameters.dropout": 0.1}),
    "smollm2, wikisql, 6 updates": (
        "lora",
        {
            "model": "smollm2",
            "dequantize": True,
            "iters": 6,
            "batch_size": 4,
            "max_seq_length": 64,
            "val_batches": 2,
            "test": False,
            "steps_per_eval": 3,
        },
    ),
}


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="a part of the name of a case")
    parser.add_argument("--wikisql", default=str(SHARED / "wikisql"), help="the folder with the WikiSQL rows")
    parser.add_argument("--rounds", type=int, default=1, help="how often each case is measured")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    options = parser.parse_args()
    if not options.json:
        print("| run | estimated before, after | took | mean estimate / took | timing took | of the run |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name, (preset, settings) in options.rounds * list(CASES.items()):
        if options.only in name:
            data = {"data": options.wikisql} if "wikisql" in name else {}
            before, took, after = measure(preset, {**settings, **data})
            found = {"run": name, "took": took, "before": before.to_dict(), "after": after.to_dict()}
            print(json.dumps(found) if options.json else as_line(name, before, took, after), flush=True)


def measure(preset: str | None, settings: dict[str, Any]) -> tuple[Estimate, float, Estimate]:
    """The estimate of a run, the CPU time that it took, and the estimate after it."""
    loaded = load_config(preset=preset, flags=settings)
    session = prepare(loaded.config, loaded.origins)
    before = _estimate(session)
    with tempfile.TemporaryDirectory() as scratch:
        run = create_run(session, Path(scratch) / "run")
        begun: list[float] = []  # the estimate covers what follows the self-check

        def see(event: Event) -> None:
            if isinstance(event, RunStarted):
                begun.append(time.process_time())

        execute(session, run, see)
        took = time.process_time() - begun[0]
    again = prepare(loaded.config, loaded.origins, loaded=session.loaded, dataset=session.dataset)
    return before, took, _estimate(again)


def _estimate(session: Session) -> Estimate:
    acceleration = accelerate(session, None, lambda note: None)
    expected = estimate(
        session, make_engine(session, acceleration.training), acceleration, clock=time.process_time
    )
    if expected is None:
        raise SystemExit("this run is too short to be estimated")
    return expected


def as_line(name: str, before: Estimate, took: float, after: Estimate) -> str:
    """A row of the table."""
    expected = (before.seconds + after.seconds) / 2
    return (
        f"| {name} | {before.seconds:.1f} s, {after.seconds:.1f} s | {took:.1f} s | {expected / took:.2f} | "
        f"{before.timing:.2f} s | {before.timing / took:.1%} |"
    )


if __name__ == "__main__":
    main()
