"""Removing a run: the files that mlxsched wrote, and no others."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mlxsched.errors import UsageError
from mlxsched.runs.atomic import storage_errors
from mlxsched.runs.directory import METRICS_FILE, RUN_FILE, is_run
from mlxsched.runs.earlier import FOLDER
from mlxsched.runs.lock import LOCK_NAME, RunLock
from mlxsched.runs.requests import REQUEST_FILE

# Directories of a run, as patterns of their path below it, and the names of the files that we write there.
_DIRECTORIES = re.compile(
    r"adapters\w*|(checkpoints|snapshots|averages)(/[\w.-]+)?|earlier(/[\d-]+(/adapters\w*|/snapshots(/\d+)?)?)?"
)
_FILES = re.compile(
    r"(adapters|average|best|optimizer)\.safetensors|adapter_config\.json|state\.json|manifest\.json"
)
_TOP = re.compile(rf"{re.escape(METRICS_FILE)}|{re.escape(REQUEST_FILE)}")
_EARLIER = re.compile(rf"{re.escape(METRICS_FILE)}|{re.escape(RUN_FILE)}")


def remove_run(path: Path) -> list[Path]:
    """Remove the run in ``path``; returns the files that stay because mlxsched did not write them.

    ``run.json`` goes last, so a removal that was cut short can be repeated. The directory itself goes when nothing is
    left in it.

    Raises:
        UsageError: there is no run, or a process is using it.
        StorageError: a file could not be removed.
    """
    path = Path(path)
    if not is_run(path):
        raise UsageError(f"There is no run in {path}. `mlxsched runs` lists the runs.")
    with RunLock(path), storage_errors(path):
        for folder in _directories(path):
            _remove_files(folder, _EARLIER if folder.parent.name == FOLDER else _FILES)
            _remove_if_empty(folder)
        _remove_files(path, _TOP)
        (path / RUN_FILE).unlink()
    with storage_errors(path):
        (path / LOCK_NAME).unlink(missing_ok=True)
        _remove_if_empty(path)
    return [Path(folder) / name for folder, _, names in os.walk(path) for name in sorted(names)]


def _directories(run: Path) -> list[Path]:
    """Our directories below ``run``, the inner ones first; links are not followed."""
    found = [Path(folder) for folder, _, _ in os.walk(run, topdown=False)]
    return [folder for folder in found if _DIRECTORIES.fullmatch(folder.relative_to(run).as_posix())]


def _remove_files(folder: Path, names: re.Pattern[str]) -> None:
    for entry in list(os.scandir(folder)):
        if names.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
            os.unlink(entry.path)


def _remove_if_empty(folder: Path) -> None:
    if not os.listdir(folder):
        folder.rmdir()
