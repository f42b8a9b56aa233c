"""How well `mlxsched diagnose` tells the faults of labelled runs apart (see labelled_runs.py).

Thresholds are chosen on the first, third, fifth ... run of each label (``--half chosen``), and judged by the others
(``--half judged``, the default).
A finding counts as right if it is the label; a healthy run is right if it has no finding but notes.

    python benchmarks/diagnosis.py /tmp/labelled
    python benchmarks/diagnosis.py /tmp/labelled --half chosen --wrong
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from mlxsched.analysis.diagnosis import diagnose, is_healthy
from mlxsched.analysis.diagnosis.histories import history_of

NOTES = ("still_improving", "slowing_down")


def verdict(path: Path, label: str) -> list[str]:
    """The codes that a run got; notes count only where they are the label."""
    findings = diagnose(history_of(path))
    if label == "healthy" and is_healthy(findings):
        return ["healthy"]
    return [one.code for one in findings if one.severity != "note" or one.code == label] or ["healthy"]


def main() -> None:
    """Print a line for each label, and the totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=["chosen", "judged", "all"], default="judged")
    parser.add_argument(
        "--wrong", action="store_true", help="print what was told of each run that was told wrong"
    )
    arguments = parser.parse_args()
    labels = json.loads((arguments.folder / "labels.json").read_text())
    seen: Counter[str] = Counter()
    true: Counter[str] = Counter()
    found: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for name, facts in labels.items():
        label, path = facts["label"], arguments.folder / "runs" / name
        seen[label] += 1
        half = "chosen" if seen[label] % 2 else "judged"
        if arguments.half not in (half, "all") or not path.exists():
            continue
        codes = verdict(path, label)
        true[label] += 1
        found.update(codes)
        right[label] += label in codes
        if arguments.wrong and codes != [label]:
            print(f"{name} ({facts['model']}, {facts['data']}): {', '.join(codes)}")
    print("| label | runs | precision | recall |\n| --- | ---: | ---: | ---: |")
    for label in sorted(true):
        precision = right[label] / found[label] if found[label] else 0.0
        print(f"| `{label}` | {true[label]} | {precision:.2f} | {right[label] / true[label]:.2f} |")
    everything = sum(right.values())
    print(f"| all | {true.total()} | {everything / found.total():.3f} | {everything / true.total():.3f} |")
    alarms = true["healthy"] - right["healthy"]
    print(f"\nFalse alarms: {alarms} of {true['healthy']} healthy runs.")


if __name__ == "__main__":
    main()
