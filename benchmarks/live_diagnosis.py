"""When a run that goes on is told what is wrong with it, and how often a healthy one is told so.

    python benchmarks/labelled_runs.py --out /tmp/labelled --runs 320
    python benchmarks/live_diagnosis.py /tmp/labelled [--sure 0.8]

Replays the records of each labelled run (see labelled_runs.py) and asks at each evaluation, as a training does. Prints for
each code in how many runs with that label it was reported, after what share of the run, in how many healthy runs it was, and
what asking costs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from mlxsched.analysis.diagnosis import live
from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.history import History
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated


def main() -> None:
    """Run the benchmark as a program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sure", type=float, default=live.SURE, help="the least confidence")
    parser.add_argument("--half", choices=["odd", "even", "all"], default="all", help="runs by number")
    parser.add_argument(
        "--wrong", action="store_true", help="print the healthy runs that were told something"
    )
    options = parser.parse_args()
    live.SURE = options.sure
    labels = json.loads((options.folder / "labels.json").read_text())
    at: dict[str, list[float]] = defaultdict(list)
    wrong: dict[str, list[str]] = defaultdict(list)
    runs: dict[str, int] = defaultdict(int)
    seconds: list[float] = []
    for name, facts in labels.items():
        path, label = options.folder / "runs" / name, facts["label"]
        if not path.is_dir() or (options.half != "all" and int(name[:3]) % 2 != (options.half == "odd")):
            continue
        runs[label] += 1
        for code, share in reported(run_history(RunDirectory.open(path), status="running"), seconds).items():
            if code == label:
                at[code].append(share)
            elif label == "healthy":
                wrong[code].append(name)
    _print("| code | runs with it | reported | after, of the run | false alarms |")
    _print("| --- | ---: | ---: | ---: | ---: |")
    for code in live.CODES:
        after = f"{statistics.median(at[code]):.0%}" if at[code] else "-"
        _print(
            f"| `{code}` | {runs[code]} | {len(at[code])} | {after} | {len(wrong[code])} of {runs['healthy']} |"
        )
    _print(
        f"\nAn evaluation is judged in {1e3 * statistics.median(seconds):.1f} ms (at most {1e3 * max(seconds):.0f} ms)."
    )
    if options.wrong:
        _print(json.dumps(wrong, indent=1))


def reported(history: History, seconds: list[float]) -> dict[str, float]:
    """The codes that the run was told while it went on, and after what share of its updates; adds to ``seconds``."""
    found: dict[str, float] = {}
    for place, event in enumerate(history.events):
        if isinstance(event, Evaluated) and event.update and event.update < history.made:
            started = time.process_time()
            certain = live.certain(replace(history, events=history.events[: place + 1]))
            seconds.append(time.process_time() - started)
            for one in certain:
                found.setdefault(one.code, event.update / history.made)
    return found


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
