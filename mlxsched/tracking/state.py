"""``tracking.json`` in the run directory: the id of the run at each tracker, so that a resume continues it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlxsched.runs.atomic import write_json
from mlxsched.runs.json_file import read_object

FILE = "tracking.json"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def read_ids(directory: Path) -> dict[str, str]:
    """The id of the run at each tracker; empty without the file. What is not an id is ignored."""
    path = directory / FILE
    if not os.path.lexists(path):
        return {}
    found = read_object(path).get("ids")
    if not isinstance(found, dict):
        return {}
    return {
        str(name): value for name, value in found.items() if isinstance(value, str) and _ID.fullmatch(value)
    }


def write_id(directory: Path, name: str, run_id: str) -> None:
    """Add or replace the id of one tracker."""
    write_json(directory / FILE, {"format": 1, "ids": {**read_ids(directory), name: run_id}})
