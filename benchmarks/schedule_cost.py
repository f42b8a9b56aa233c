"""What a schedule costs: the time of a call, compared with MLX's own cosine_decay, and of the import.

    python benchmarks/schedule_cost.py                 the example of every schedule and alias, compiled
    python benchmarks/schedule_cost.py --eager wsd     selected schedules, not compiled
    python benchmarks/schedule_cost.py --check         exit with code 1 if a ratio is above its limit

A timed call does what a training step does: it creates a uint64 step array, calls the schedule, and evaluates the
result. Short rounds of the schedule and of MLX's cosine alternate. The ratio is the median of the rounds' ratios, so a
busy machine slows both down equally.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

import mlxsched as ms
from mlxsched.render.alias_examples import ARGUMENTS, alias_spec

CALL_LIMIT, IMPORT_LIMIT = 2.0, 1.3


def seconds_per_call(function: Callable[[mx.array], mx.array], calls: int) -> float:
    start = time.perf_counter()
    for step in range(calls):
        mx.eval(function(mx.array(step, mx.uint64)))
    return (time.perf_counter() - start) / calls


def example(name: str) -> ms.Schedule:
    """The schedule in the documented example of ``name``."""
    return ms.parse(alias_spec(name) or ms.schedules.entry(name).spec)


def measure_call(name: str, compiled: bool, rounds: int, calls: int) -> tuple[float, float]:
    """Seconds per call, and their ratio to the baseline's: medians over the rounds."""
    both = [optim.cosine_decay(1e-1, 1000), example(name)]
    base, schedule = (mx.compile(one) if compiled else one for one in both)
    for function in (base, schedule):
        seconds_per_call(function, 10)  # trace and compile the kernel
    times = [(seconds_per_call(base, calls), seconds_per_call(schedule, calls)) for _ in range(rounds)]
    return statistics.median(own for _, own in times), statistics.median(own / other for other, own in times)


def measure_imports(rounds: int) -> dict[str, float]:
    """Seconds of an import in a fresh interpreter, not counting the interpreter's own startup."""
    best = {"import mlx.optimizers": float("inf"), "import mlxsched": float("inf")}
    for _ in range(rounds):
        for statement in best:
            code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            best[statement] = min(best[statement], float(shown.stdout))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="schedules (default: all)")
    parser.add_argument("--eager", action="store_true", help="call them without mx.compile")
    parser.add_argument("--check", action="store_true", help="exit with code 1 if a ratio is above its limit")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--calls", type=int, default=50)
    options = parser.parse_args()

    names = options.names or [*ms.schedules.names(), *ARGUMENTS]
    calls = {name: measure_call(name, not options.eager, options.rounds, options.calls) for name in names}
    imports = measure_imports(options.rounds // 2)
    worst = max(ratio for _, ratio in calls.values())
    import_ratio = imports["import mlxsched"] / imports["import mlx.optimizers"]
    if options.json:
        shown = {name: {"seconds": seconds, "ratio": ratio} for name, (seconds, ratio) in calls.items()}
        print(json.dumps({"calls": shown, "imports": imports, "import_ratio": import_ratio}))
    else:
        for name, (seconds, ratio) in sorted(calls.items(), key=lambda pair: pair[1][1]):
            print(f"{name:36} {seconds * 1e6:8.1f} us  {ratio:5.2f}x")
        for statement, seconds in imports.items():
            print(f"{statement:36} {seconds * 1e3:8.1f} ms")
        print(f"{'worst call':36} {worst:17.2f}x  (limit {CALL_LIMIT}x)")
        print(f"{'import':36} {import_ratio:17.2f}x  (limit {IMPORT_LIMIT}x)")
    within = worst <= CALL_LIMIT and import_ratio <= IMPORT_LIMIT
    return 0 if within or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
