"""``mlxsched cache``: what is kept on disk to save time, and how to be rid of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, table

if TYPE_CHECKING:
    from pathlib import Path

    from mlxsched.platform.caches import Entry

KINDS = {"models": "converted models", "rows": "tokenized rows", "prefix": "outputs of frozen layers"}


@click.command()
@click.option("--clear", is_flag=True, help="Remove everything that no run is using now.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(clear: bool, as_json: bool) -> None:
    """Show what is kept on disk between runs, or remove it.

    Nothing in there is the only copy: what is missing is made again, which takes time.

    \b
    Examples:
      mlxsched cache
      mlxsched cache --clear
    """
    from mlxsched.platform.caches import entries
    from mlxsched.platform.paths import cache_home

    home = cache_home()
    told: dict[str, Any] = {}
    if clear:
        removed = _clear(home)
        told = {"removed": len(removed), "freed": sum(entry.size for entry in removed)}
        note(f"Removed {told['removed']} entries, {_megabytes(told['freed'])}.")
    shown = [_described(kind, entry) for kind in KINDS for entry in entries(home / kind)]
    total = sum(entry["size"] for entry in shown)
    if as_json:
        print_json({"directory": str(home), "size": total, "entries": shown, **told})
        return
    _show(shown)
    note(f"{_megabytes(total)} in {home}")


def _clear(home: Path) -> list[Entry]:
    """Remove what nobody uses; gives what was removed."""
    from mlxsched.platform.caches import entries, remove, sweep

    for kind in KINDS:
        sweep(home / kind)
    return [entry for kind in KINDS for entry in entries(home / kind) if remove(entry.path)]


def _described(kind: str, entry: Entry) -> dict[str, Any]:
    from datetime import datetime

    used = datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds")
    facts: dict[str, Any] = {"kind": kind, "of": _made_of(entry), "size": entry.size, "used": used}
    return facts | {"in_use": entry.in_use, "path": str(entry.path)}


def _made_of(entry: Entry) -> str:
    """The data set or the model that an entry was made of; empty where it doesn't say."""
    from mlxsched.errors import UserError
    from mlxsched.platform.caches import HEADER
    from mlxsched.runs.json_file import read_object

    try:
        header = read_object(entry.path / HEADER)
    except UserError:  # damaged, or of a process that was killed: it will be made anew
        return ""
    return str(header.get("source") or header.get("model") or "")


def _show(shown: list[dict[str, Any]]) -> None:
    if not shown:
        return
    lines = [
        (KINDS[e["kind"]], e["of"], _megabytes(e["size"]), e["used"][:16].replace("T", " "), _use(e))
        for e in shown
    ]
    table(lines, header=("kept", "of", "size", "last used", ""))


def _use(entry: dict[str, Any]) -> str:
    return "in use" if entry["in_use"] else ""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
