"""Does a run with --max-time end on time, with its schedule completed? Real runs on the bundled model.

    python benchmarks/time_budget.py                                 all budgets and shapes, about half an hour
    python benchmarks/time_budget.py --seconds 20 --shapes linear    some of them

Each run is made twice: on the machine as it is, and with busy processes (one for each core) from 40% to 70% of the
budget. The model is loaded once, before the time begins: the time is that of `execute`, with its measurements, evaluations
and checkpoints.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mlxsched.config import load_config
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import Session, prepare

BUSY = "while True: pass"
DISTURBED = (0.4, 0.7)  # from and to, in shares of the budget


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, nargs="*", default=[20, 60, 180], help="the budgets")
    parser.add_argument("--shapes", nargs="*", default=["linear", "cosine", "wsd"], help="the schedules")
    parser.add_argument("--json", action="store_true", help="print JSON lines in place of a table")
    options = parser.parse_args()
    if not options.json:
        _print(
            "| budget | schedule | machine | took | off by | updates | decisions | last rate / peak | largest step / peak |"
        )
        _print("| ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    first = prepare(load_config().config)
    for seconds in options.seconds:
        for shape in options.shapes:
            for disturbed in (False, True):
                found = measure(first, seconds, shape, disturbed=disturbed)
                _print(json.dumps(found) if options.json else as_line(found))


def measure(first: Session, seconds: float, shape: str, *, disturbed: bool) -> dict[str, object]:
    """One run of the model and the data of ``first``: how long it took, and its rates."""
    loaded = load_config(flags={"max_time": seconds, "schedule": shape, "val_batches": 4, "batch_size": 8})
    session = prepare(loaded.config, loaded.origins, loaded=first.loaded, dataset=first.dataset)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, _disturbance(seconds if disturbed else None):
        run = create_run(session, Path(scratch) / "run")
        progress = execute(replace(session, started=started), run)
        took = time.monotonic() - started
        rates = [
            float(record["lr"])
            for record in RunDirectory.open(run.path).read_metrics()
            if record["kind"] == "train"
        ]
    top = max(rates)
    after = rates[rates.index(top) :]
    return {
        "budget": seconds,
        "schedule": shape,
        "machine": "disturbed" if disturbed else "as it is",
        "took": round(took, 2),
        "updates": progress.update,
        "decisions": len(progress.revisions),
        "last_rate": rates[-1] / top,
        "largest_step": max((one - other for one, other in pairwise(after)), default=0.0) / top,
    }


def as_line(found: dict[str, object]) -> str:
    """A row of the table."""
    off = float(str(found["took"])) - float(str(found["budget"]))
    return (
        f"| {found['budget']:g} s | {found['schedule']} | {found['machine']} | {found['took']:.1f} s | {off:+.1f} s | "
        f"{found['updates']} | {found['decisions']} | {found['last_rate']:.2%} | {found['largest_step']:.2%} |"
    )


@contextmanager
def _disturbance(seconds: float | None) -> Iterator[None]:
    """Keep every core busy in the middle of ``seconds``; None for never."""
    over = threading.Event()
    thread = threading.Thread(target=_disturb, args=(seconds, over)) if seconds else None
    if thread:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread:
            thread.join()


def _disturb(seconds: float, over: threading.Event) -> None:
    first, last = (share * seconds for share in DISTURBED)
    over.wait(first)
    busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(os.cpu_count() or 1)]
    over.wait(last - first)
    for process in busy:
        process.kill()
        process.wait()


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
