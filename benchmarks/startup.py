"""How long `mlxsched --help` takes, compared with importing click alone; the target is at most twice as long.

    python benchmarks/startup.py [--cold]

``--cold`` measures the start of the README's first command: a training of one update with its evaluations, first without the kernels
that MLX builds on the CPU, without tokenized rows and without frozen-prefix activations, then again with them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 20
COMMANDS = {
    "python": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import mlxsched": ["-c", "import mlxsched"],
    "mlxsched --help": ["-m", "mlxsched", "--help"],
    "mlxsched presets --help": ["-m", "mlxsched", "presets", "--help"],
    "mlxsched presets": ["-m", "mlxsched", "presets"],
}


def seconds(arguments: list[str]) -> float:
    """The wall-clock time of a new Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


TRAIN = ["train", "--preset", "laptop", "--iters", "4", "--no-test", "--plain", "--name"]


def cold() -> None:
    """Print kernels, CPU seconds (children included) and seconds of the same command twice."""
    print(f"{'start':8}{'kernels built':>15}{'CPU s':>8}{'s':>8}")
    with tempfile.TemporaryDirectory() as folder:
        own = {"TMPDIR": folder, "MLXSCHED_CACHE": f"{folder}/cache"}
        before = 0
        for name in ("cold", "warm"):
            cpu, start = os.times(), time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "mlxsched", *TRAIN, name],
                check=True, capture_output=True, cwd=folder, env=os.environ | own,
            )  # fmt: skip
            wall, after = time.perf_counter() - start, os.times()
            spent = after.children_user + after.children_system - cpu.children_user - cpu.children_system
            kernels = len(list(Path(folder).glob("mlx/*/cpu/*.so")))
            print(f"{name:8}{kernels - before:15}{spent:8.1f}{wall:8.1f}", flush=True)
            before = kernels


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cold", action="store_true")
    if parser.parse_args().cold:
        cold()
    else:
        imports()


def imports() -> None:
    """Alternate between the commands, so that a slow moment affects all of them, and print the medians."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    medians = {name: sorted(values)[ROUNDS // 2] for name, values in times.items()}
    print(f"{'command':26}{'median ms':>10}{'x click':>10}")
    for name, median in medians.items():
        print(f"{name:26}{median * 1e3:10.1f}{median / medians['import click']:10.2f}")


if __name__ == "__main__":
    main()
