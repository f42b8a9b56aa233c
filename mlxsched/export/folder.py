"""Writing into a folder that the user named: whole or not at all, and never over files of others."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from mlxsched.errors import UsageError, UserError
from mlxsched.runs.atomic import TEMPORARY_PREFIX, storage_errors, write_json
from mlxsched.runs.json_file import read_object

MARKER = "mlxsched-export.json"  # names the files in a folder that we wrote, and may replace


def write_folder(folder: Path, fill: Callable[[Path], None], *, force: bool = False) -> list[str]:
    """Put what ``fill(temporary)`` writes into ``folder`` and return the names of the files.

    ``temporary`` is inside ``folder``; when ``fill`` raises, nothing of it is left. A file of the same name that an
    earlier call did not write is a `UsageError` unless ``force``; other files are left alone.
    """
    folder = Path(folder)
    temporary = folder / f"{TEMPORARY_PREFIX}{secrets.token_hex(6)}"
    made = not folder.exists()
    with storage_errors(folder):
        temporary.mkdir(parents=True)
        try:
            fill(temporary)
            names = sorted(os.listdir(temporary))
            check_free(folder, names, force=force)
            write_json(folder / MARKER, {"format": 1, "files": sorted({*names, *_ours(folder)})})
            for name in names:
                os.replace(temporary / name, folder / name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            if made and not any(folder.iterdir()):
                folder.rmdir()
    return names


def check_free(folder: Path, names: list[str], *, force: bool) -> None:
    """Raise `UsageError` if one of ``names`` is in ``folder`` and not ours; ask before anything long is done."""
    others = [name for name in names if os.path.lexists(folder / name) and name not in _ours(folder)]
    if others and not force:
        raise UsageError(
            f"{folder / others[0]} exists and was not written by mlxsched. Choose another folder, or overwrite it "
            "with --force."
        )


def _ours(folder: Path) -> set[str]:
    try:
        files = read_object(folder / MARKER).get("files")
    except UserError:
        return set()
    return {str(name) for name in files} if isinstance(files, list) else set()
