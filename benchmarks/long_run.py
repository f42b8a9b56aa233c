"""How long a run of 100,000 updates takes to diagnose and to report, and how long the commands on a run take to start.

    python benchmarks/long_run.py

Times are CPU seconds, which other programs on the machine change little. The targets: a diagnosis below 2 s; a report
below 5 MB that a browser opens in less than 3 s, beyond what an empty page takes; `check`, `diagnose` and `plot` below half
a second, beyond Python with NumPy, click and plotext.
"""

from __future__ import annotations

import math
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from mlxsched.analysis.diagnosis import diagnose
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.render.report import ReportedRun, report_html
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.runs.recording import read_recording

LONG, SHORT = 100_000, 300
ROUNDS = 3
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
T = TypeVar("T")


def synthetic(path: Path, updates: int) -> RunDirectory:
    """A run of ``updates`` updates with 100 evaluations, as ours records them: loss falling to 0.5, noise of a tenth."""
    config = {"optimizer": "adamw", "fine_tune_type": "lora", "schedule": "linear", "learning_rate": 1e-3}
    run = RunDirectory.create(
        path, config=config, origins={}, plan={"updates": updates, "peak": 1e-3}, versions={}
    )
    noise = random.Random(0)
    with run.lock():
        for update in range(updates):
            mean = 0.5 + 2.5 * math.exp(-12 * update / updates)
            if update % max(updates // 100, 1) == 0:
                run.metrics.record(Evaluated(update, mean, math.exp(mean), seconds=0.5))
            rate = 1e-3 * min(update / (0.05 * updates), 1.0) * (1 - update / updates)
            loss, speed = mean + noise.gauss(0, 0.1), 3000 + noise.gauss(0, 50)
            run.metrics.record(
                UpdateMade(update, loss, rate, 1 + noise.random(), 300, 100, speed, 0.3, 300 / speed, mean)
            )
        run.update_info(status="finished", update=updates, best={"update": updates, "loss": 0.5})
    return run


def cpu(work: Callable[[], T]) -> tuple[float, T]:
    """The CPU seconds of ``work`` in this process, and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def cpu_of(command: list[str]) -> float:
    """The CPU seconds of another process and its children: the median of some rounds."""
    times = []
    for _ in range(ROUNDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)
    return sorted(times)[ROUNDS // 2]


def opening(page: Path, profile: Path) -> float:
    """CPU seconds of a browser that opens ``page`` and draws it."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    return cpu_of([str(BROWSER), *flags, f"--user-data-dir={profile}", page.as_uri()])


def line(what: str, value: str, target: str) -> None:
    """Print a row of the table."""
    print(f"| {what} | {value} | {target} |", flush=True)


def long_run(folder: Path) -> None:
    """The rows about 100,000 records."""
    path = synthetic(folder / "long", LONG).path
    reading, recording = cpu(lambda: read_recording(path))
    run = RunDirectory.open(path)
    judging, _ = cpu(lambda: diagnose(run_history(run, recording)))
    line("reading 100,000 records", f"{reading:.2f} s", "")
    line("diagnosing them", f"{judging:.2f} s", "")
    line("both: `diagnose`", f"{reading + judging:.2f} s", "2 s")
    writing, text = cpu(lambda: report_html([ReportedRun.of(run, recording)]))
    line("writing the report", f"{writing:.2f} s", "")
    line("its size", f"{len(text.encode()) / 1e6:.2f} MB", "5 MB")
    if BROWSER:
        page, empty = folder / "report.html", folder / "empty.html"
        page.write_text(text, encoding="utf-8")
        empty.write_text("<!DOCTYPE html><title>empty</title>", encoding="utf-8")
        extra = opening(page, folder / "profile") - opening(empty, folder / "profile")
        line("opening it, beyond an empty page", f"{extra:.2f} s", "3 s")


def start(folder: Path) -> None:
    """The rows about starting a command."""
    run = str(synthetic(folder / "short", SHORT).path)
    base = cpu_of([sys.executable, "-c", "import click, numpy, plotext"])
    line("Python with NumPy, click and plotext", f"{base:.2f} s", "")
    spec = "warmup_linear(peak=2e-4, steps=1000, warmup=50)"
    for arguments in (["check", spec], ["diagnose", run], ["plot", run]):
        extra = cpu_of([sys.executable, "-m", "mlxsched", *arguments]) - base
        line(f"`{arguments[0]}`, beyond that", f"{extra:.2f} s", "0.5 s")


def main() -> None:
    """Print the table."""
    print("| what | CPU time or size | target |\n| --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        long_run(Path(folder))
        start(Path(folder))


if __name__ == "__main__":
    main()
