"""How long `mlxsched --help` takes, compared with importing click alone; the target is at most twice as long.

Run it with `python benchmarks/startup.py`.
"""

from __future__ import annotations

import subprocess
import sys
import time

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


def main() -> None:
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
