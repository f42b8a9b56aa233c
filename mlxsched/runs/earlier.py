"""How a run ended before it went on: kept in ``earlier/001000/``, a run of its own that every command can read."""

from __future__ import annotations

import dataclasses
import filecmp
import itertools
import os
import shutil
from pathlib import Path

from mlxsched.runs import atomic
from mlxsched.runs.directory import ADAPTERS, METRICS_FILE, RUN_FILE, SNAPSHOTS, RunDirectory
from mlxsched.runs.info import RunInfo, to_json

FOLDER = "earlier"


def keep_end(run: RunDirectory) -> str:
    """Copy ``run.json``, the records and the adapters of `run` to ``earlier/UPDATE``; returns that name.

    The caller holds the lock. A kill between this and what comes after it is no harm: the next call finds the copy.
    """
    with atomic.storage_errors(run.path / FOLDER):
        (run.path / FOLDER).mkdir(exist_ok=True)
    for number in itertools.count(1):
        name = f"{FOLDER}/{run.info.update:06d}" + (f"-{number}" if number > 1 else "")
        if not os.path.lexists(run.path / name):
            atomic.new_directory(run.path / name, lambda aside: _fill(run, aside))
            return name
        if _is_copy(run, run.path / name):
            return name
    raise AssertionError  # the count has no end


def _fill(run: RunDirectory, aside: Path) -> None:
    atomic.write_json(aside / RUN_FILE, to_json(_info(run)))
    if (run.path / METRICS_FILE).exists():
        shutil.copyfile(run.path / METRICS_FILE, aside / METRICS_FILE)
    for name in (*ADAPTERS, SNAPSHOTS):
        if (run.path / name).is_dir():
            shutil.copytree(run.path / name, aside / name, symlinks=True)


def _info(run: RunDirectory) -> RunInfo:
    # Relative places are those seen from the copy, two directories further down.
    paths = {
        key: {**place, "from_run": os.path.join("..", "..", place["from_run"])}
        for key, place in run.info.paths.items()
    }
    message = f"a copy of {run.name} as it was after {run.info.update} updates, before it went on"
    return dataclasses.replace(run.info, paths=paths, status="finished", message=message)


def _is_copy(run: RunDirectory, found: Path) -> bool:
    """Whether `found` holds the records and the adapters that the run has now."""
    names = [METRICS_FILE, *(str(path.relative_to(run.path)) for path in run.path.glob("adapters*/*"))]
    ours = [name for name in names if (run.path / name).is_file()]
    return all(
        (found / name).is_file() and filecmp.cmp(run.path / name, found / name, shallow=False)
        for name in ours
    )
