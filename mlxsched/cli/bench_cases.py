"""``mlxsched bench --case`` and ``--share``: prepared cases, and a file of their results that people can send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlxsched.bench.cases import CASES, measure, obstacle
from mlxsched.cli.output import note, print_json, table
from mlxsched.errors import UsageError

Tell = Callable[[str, int, int], None]


def run_cases(names: Sequence[str], share: Path | None, *, as_json: bool, eta: Callable[[], Tell]) -> None:
    """Measure the named cases, or all that can run here; show them, and write ``share`` after each.

    Raises ``UsageError`` if none of the named ones can run here.
    """
    from mlxsched.bench.share import document

    if share is not None:
        _refuse(share)
    measured: dict[str, dict[str, Any]] = {}
    skipped: dict[str, str] = {}
    for name in names or CASES:
        reason = obstacle(CASES[name], asked=bool(names))
        if reason is not None:
            skipped[name] = reason
            note(f"{name}: skipped, {reason}.")
            continue
        note(f"{name}: {CASES[name].title}, {CASES[name].kind}")
        measured[name] = measure(CASES[name], eta())
        _write(share, document(measured, skipped))
    if names and not measured:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
        raise UsageError(f"nothing was measured. {reasons}.")
    found = document(measured, skipped)
    _write(share, found)
    if share is not None:
        note(
            f"Wrote {share}. It contains the machine's class and versions, but no paths, host names or user names. Review it, then send it."
        )
    if as_json:
        print_json(found)
    elif measured:
        _show(measured)


def _refuse(share: Path) -> None:
    """Before anything is measured, which takes up to hours."""
    if share.exists():
        raise UsageError(f"{share} exists. Give --share another name.")
    if not share.parent.is_dir():
        raise UsageError(f"there is no folder {share.parent} for --share. Create it.")
    try:
        share.touch(exist_ok=False)
        share.unlink()
    except OSError as error:
        raise UsageError(
            f"{share} can't be written: {error.strerror}. Give --share another name or folder."
        ) from error


def _write(share: Path | None, found: dict[str, Any]) -> None:
    from mlxsched.runs.atomic import write_json

    if share is not None:
        write_json(share, found)


def _show(measured: dict[str, dict[str, Any]]) -> None:
    lines = [
        (
            f"{case['title']}, {case['kind']}",
            f"{case['speedup']:.2f}x",
            f"{case['later_epochs_speedup']:.2f}x",
            f"{case['evaluation_speedup']:.2f}x",
            f"{case['peak_memory_ratio']:.2f}",
            f"{case['mlxsched_tokens_per_second']:,.0f}",
        )
        for case in measured.values()
    ]
    table(lines, header=("case", "first epoch", "later", "evaluation", "peak", "real tokens/s"))
