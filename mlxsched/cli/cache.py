"""``mlxsched cache``: show or remove what is kept on disk to save time."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, table
from mlxsched.text import megabytes

if TYPE_CHECKING:
    from pathlib import Path

    from mlxsched.platform.caches import Entry

KINDS = {
    "models": "converted models",
    "rows": "tokenized rows",
    "prefix": "frozen-prefix activations",
    "blas": "OpenBLAS for MLX",
    "rates": "learning rates found",
    "tuning": "optimizations timed",
}


@click.command()
@click.option("--clear", is_flag=True, help="Remove every entry that no run is using.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(clear: bool, as_json: bool) -> None:
    """Show what is cached on disk between runs, or remove it.

    The cache never holds the only copy of anything: a missing entry is rebuilt, which takes time.

    \b
    Examples:
      mlxsched cache
      mlxsched cache --clear
    """
    from mlxsched.platform.caches import entries
    from mlxsched.platform.paths import cache_home

    home = cache_home()
    removal: dict[str, Any] = {}
    if clear:
        removed = _clear(home)
        removal = {"removed": len(removed), "freed": sum(entry.size for entry in removed)}
        note(f"Removed {removal['removed']} entries, {megabytes(removal['freed'])}.")
    shown = [_described(kind, entry) for kind in KINDS for entry in entries(home / kind)]
    total = sum(entry["size"] for entry in shown)
    if as_json:
        print_json({"directory": str(home), "size": total, "entries": shown, **removal})
        return
    _show(shown)
    note(f"{megabytes(total)} in {home}")


def _clear(home: Path) -> list[Entry]:
    """Remove the entries that are not in use; returns the removed ones."""
    from mlxsched.platform.caches import entries, remove, sweep

    for kind in KINDS:
        sweep(home / kind)
    return [entry for kind in KINDS for entry in entries(home / kind) if remove(entry.path)]


def _described(kind: str, entry: Entry) -> dict[str, Any]:
    from datetime import datetime

    used = datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds")
    facts: dict[str, Any] = {"kind": kind, "of": _source(entry), "size": entry.size, "used": used}
    return facts | {"in_use": entry.in_use, "path": str(entry.path)}


def _source(entry: Entry) -> str:
    """The data set or the model that an entry was made from; empty when its header does not say."""
    from mlxsched.errors import UserError
    from mlxsched.platform.caches import HEADER
    from mlxsched.runs.json_file import read_object

    try:
        header = read_object(entry.path / HEADER)
    except UserError:  # damaged, or left by a process that was killed: it will be rebuilt
        return ""
    return str(header.get("source") or header.get("model") or "")


def _show(shown: list[dict[str, Any]]) -> None:
    if not shown:
        return
    lines = [
        (
            KINDS[e["kind"]],
            e["of"],
            PurePath(e["path"]).name[:8],  # tells entries from the same data apart
            megabytes(e["size"]),
            e["used"][:16].replace("T", " "),
            "in use" if e["in_use"] else "",
        )
        for e in shown
    ]
    table(
        lines, header=("kind", "made from", "entry", "size", "last used", ""), optional=("last used", "entry")
    )
