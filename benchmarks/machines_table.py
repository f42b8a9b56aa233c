"""The table of docs/machines.md, from the files in benchmarks/machines/ that `mlxsched bench --share` wrote.

mlxsched bench --share benchmarks/machines/m3-max.json
python benchmarks/machines_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mlxsched.bench.share import read_shared
from mlxsched.errors import UserError
from mlxsched.text import counted

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "machines.md"
BEGIN, END = "<!-- machines -->", "<!-- end machines -->"
HEADER = (
    "machine", "versions", "case", "first epoch", "later epochs", "evaluation", "peak above weights", "loss",
    "real tokens/s", "faster than the default",
)  # fmt: skip


def rows(found: dict[str, Any]) -> list[list[str]]:
    """A row for each case of a shared file."""
    machine, versions = found["machine"], found["versions"]
    name = f"{machine['chip']}, {machine['device']}, {machine['memory_gb']:g} GB, {machine['system']}"
    released = ", ".join(f"{package} {versions[package]}" for package in ("mlx", "mlx-lm", "mlxsched"))
    return [[name, released, *_case(case)] for case in found["cases"].values()]


def _case(case: dict[str, Any]) -> list[str]:
    low, high = min(case["speedups"]), max(case["speedups"])
    spread = f" ({low:.2f} to {high:.2f})" if case["rounds"] > 1 else ""
    faster = [
        f"{one['kind']} {one['name']} {one['gain']:.2f}x"
        for one in case["candidates"]
        if one["chosen"] and one["gain"] and one["gain"] > 1
    ]
    count = case.get("blas_threads")
    threads = f", {counted(count, 'BLAS thread')}" if isinstance(count, int) else ""
    return [
        f"{case['title']}, {case['kind']}, {case['rows']} rows of up to {case['longest']} tokens{threads}",
        f"**{case['speedup']:.2f}x**{spread}",
        f"{case['later_epochs_speedup']:.2f}x",
        f"{case['evaluation_speedup']:.2f}x",
        f"{case['peak_memory_ratio']:.2f}",
        f"{case['loss_difference']:.0e}",
        f"{case['mlxsched_tokens_per_second']:,.0f}",
        ", ".join(faster) or "none",
    ]


def table(folder: Path) -> list[str]:
    """The lines of the table; a file that cannot be used is named on stderr and left out."""
    lines = [HEADER, ["---"] * len(HEADER)]
    for path in sorted(folder.glob("*.json")):
        try:
            lines += rows(read_shared(path))
        except (UserError, ValueError, KeyError, TypeError, AttributeError) as error:
            sys.stderr.write(f"{path.name} is left out: {error!r}\n")
    return [f"| {' | '.join(_cell(value) for value in line)} |" for line in lines]


def _cell(text: str) -> str:
    """``text`` from a stranger's file, which must not end its cell."""
    return " ".join(text.replace("|", "/").replace("<", "(").split())[:200]


def main() -> None:
    """Replace the table between its markers."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    block = "\n".join([BEGIN, *table(HERE / "machines"), END])
    PAGE.write_text(before + block + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
