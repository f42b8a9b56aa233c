"""What a schedule costs: the time of a call, side by side with MLX's own cosine_decay, and of the import.

    python benchmarks/schedule_cost.py                 every schedule's example, compiled; and the import
    python benchmarks/schedule_cost.py --eager wsd     some of them, not compiled
    python benchmarks/schedule_cost.py --check         exit with 1 if a ratio is above its limit

A call is timed as a training step makes it: a new uint64 step array, the schedule, and `mx.eval` of its result. Rounds
of all schedules alternate, and a schedule's time is its fastest round, so that a busy machine slows all alike.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

import mlxsched as ms

CALL_LIMIT, IMPORT_LIMIT = 2.0, 1.3
BASELINE = "mlx.optimizers.cosine_decay"


def seconds_per_call(function: Callable[[mx.array], mx.array], calls: int) -> float:
    start = time.perf_counter()
    for step in range(calls):
        mx.eval(function(mx.array(step, mx.uint64)))
    return (time.perf_counter() - start) / calls


def measure_calls(names: list[str], compiled: bool, rounds: int, calls: int) -> dict[str, float]:
    """Seconds of a call: the fastest round of each."""
    schedules = {BASELINE: optim.cosine_decay(1e-1, 1000)}
    schedules |= {name: ms.parse(ms.schedules.entry(name).spec) for name in names}
    ready = {name: mx.compile(one) if compiled else one for name, one in schedules.items()}
    for function in ready.values():
        seconds_per_call(function, 10)  # traces and builds the kernel
    best = dict.fromkeys(ready, float("inf"))
    for _ in range(rounds):
        for name, function in ready.items():
            best[name] = min(best[name], seconds_per_call(function, calls))
    return best


def measure_imports(rounds: int) -> dict[str, float]:
    """Seconds of an import in a fresh interpreter, without the interpreter's own start."""
    best = {"import mlx.optimizers": float("inf"), "import mlxsched": float("inf")}
    for _ in range(rounds):
        for statement in best:
            code = f"import time; t = time.perf_counter(); {statement}; print(time.perf_counter() - t)"
            shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
            best[statement] = min(best[statement], float(shown.stdout))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="schedules (default: all)")
    parser.add_argument("--eager", action="store_true", help="call them without mx.compile")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a ratio is above its limit")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200)
    options = parser.parse_args()

    calls = measure_calls(
        options.names or ms.schedules.names(), not options.eager, options.rounds, options.calls
    )
    imports = measure_imports(options.rounds)
    ratios = {name: seconds / calls[BASELINE] for name, seconds in calls.items()}
    import_ratio = imports["import mlxsched"] / imports["import mlx.optimizers"]
    if options.json:
        print(json.dumps({"seconds": calls, "ratios": ratios, "imports": imports, "import_ratio": import_ratio}))
    else:
        for name, seconds in sorted(calls.items(), key=lambda pair: pair[1]):
            print(f"{name:30} {seconds * 1e6:8.1f} us  {ratios[name]:5.2f}x")
        for statement, seconds in imports.items():
            print(f"{statement:30} {seconds * 1e3:8.1f} ms")
        print(f"{'worst call':30} {max(ratios.values()):17.2f}x  (limit {CALL_LIMIT}x)")
        print(f"{'import':30} {import_ratio:17.2f}x  (limit {IMPORT_LIMIT}x)")
    within = max(ratios.values()) <= CALL_LIMIT and import_ratio <= IMPORT_LIMIT
    return 0 if within or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
