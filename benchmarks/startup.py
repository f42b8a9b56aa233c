"""How long `mlxsched --help` takes, compared with importing click alone; the target is at most twice as long.

    python benchmarks/startup.py [--cold]

``--cold`` measures the start of the README's first command: a training of one update with its evaluations, first without the kernels
that MLX builds on the CPU, without tokenized rows and without frozen-prefix activations, then again with them. The first start is
also measured without the precompiled header of the kernels.
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
# Name -> whether the folders are new, and variables to add to the environment.
STARTS = {
    "first, header not precompiled": (True, {"MLXSCHED_NO_PRECOMPILED_HEADER": "1"}),
    "first": (True, {}),
    "again": (False, {}),
}
COLD_ROUNDS = 3


def cold() -> None:
    """Alternate between the starts, and print kernels, CPU seconds (children included) and seconds."""
    print(
        f"{'start':32}{'kernels built':>15}{'CPU s':>8}{'s until the update':>20}{'longest silence, s':>20}"
    )
    for _ in range(COLD_ROUNDS):
        with tempfile.TemporaryDirectory() as base:
            for position, (name, (new, more)) in enumerate(STARTS.items()):
                folder = Path(base, str(position if new else position - 1))
                folder.mkdir(exist_ok=True)
                print(f"{name:32}{start(folder, more)}", flush=True)


def start(folder: Path, more: dict[str, str]) -> str:
    """Train in ``folder``; returns the numbers."""
    kernels, usage, began = kernels_in(folder), os.times(), time.perf_counter()
    own = {"TMPDIR": str(folder), "MLXSCHED_CACHE": f"{folder}/cache"}
    updated, told, silence = 0.0, began, 0.0
    with subprocess.Popen(
        [sys.executable, "-m", "mlxsched", *TRAIN, f"run{kernels}"],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=folder, env=os.environ | own | more,
    ) as process:  # fmt: skip
        for line in process.stderr or ():
            silence, told = max(silence, time.perf_counter() - told), time.perf_counter()
            if line.startswith("update 1/1"):
                updated = told - began
    if process.returncode:
        raise SystemExit(f"the training ended with code {process.returncode}")
    after = os.times()
    spent = after.children_user + after.children_system - usage.children_user - usage.children_system
    return f"{kernels_in(folder) - kernels:15}{spent:8.1f}{updated:20.1f}{silence:20.1f}"


def kernels_in(folder: Path) -> int:
    """The number of kernels that MLX has built in ``folder``."""
    return len(list(folder.glob("mlx/*/cpu/*.so")))


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
