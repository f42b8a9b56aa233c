"""Where runs live, and what their ``run.json`` says, without loading a model or a tensor."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlxsched.bundled import DATA, MODELS
from mlxsched.errors import MlxschedError, UsageError
from mlxsched.runs import atomic
from mlxsched.runs.atomic import TakenError
from mlxsched.runs.directory import DEFAULT_ROOT, RunDirectory, is_run
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import reading_errors

PATH_KEYS = ("data", "model", "resume_adapter_file")
"""The keys of a config that may name a local file or directory which a run reads."""
_BUNDLED = {"data": DATA, "model": MODELS}
_Created = TypeVar("_Created")
_LONGEST_NAME = 200  # file systems allow 255 bytes; temporaries need some of them


@dataclass(frozen=True)
class StoredRun:
    """A run that was found on the disk; when `run.json` cannot be read, `info` is None and `problem` says why."""

    path: Path
    info: RunInfo | None
    problem: str = ""


def runs_below(root: Path) -> list[StoredRun]:
    """All runs in `root` and its subdirectories, the oldest first; links are not followed."""
    found = [_stored(path) for path in _run_paths(Path(root))]
    return sorted(found, key=lambda run: (run.info.created if run.info else "", str(run.path)))


def _run_paths(root: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(root):
        if is_run(Path(folder)):
            names.clear()  # no runs inside a run
            yield Path(folder)
        names[:] = sorted(name for name in names if not name.startswith("."))


def _stored(path: Path) -> StoredRun:
    try:
        return StoredRun(path, RunDirectory.open(path).info)
    except MlxschedError as error:
        return StoredRun(path, None, str(error))


def run_path(run_dir: str | None, name: str | None, hint: str | None) -> Path:
    """Where a new run goes: `run_dir`, else ``runs/NAME``, else the next free number after `hint`.

    Raises `UsageError` for a name that no file system takes.
    """
    path = Path(run_dir).expanduser() if run_dir else DEFAULT_ROOT / name if name else None
    if path is None:
        return next_run_name(DEFAULT_ROOT, hint or "run")
    longest = max(len(os.fsencode(part)) for part in (*path.parts, path.name))
    if longest > _LONGEST_NAME or "\0" in str(path):
        raise UsageError(
            f"the name of the run has {longest} bytes; at most {_LONGEST_NAME} fit. Choose a shorter one."
        )
    return path


def next_run_name(base: Path, hint: str, after: int = 0) -> Path:
    """The next free directory of the form ``base/hint-001``, with a number greater than `after`.

    `hint` is reduced to letters, digits and hyphens.

    >>> next_run_name(Path("no-such-directory"), "Laptop (small)")
    PosixPath('no-such-directory/laptop-small-001')
    """
    stem = re.sub(r"[^a-z0-9]+", "-", hint.lower()).strip("-")[:60] or "run"
    pattern = re.compile(re.escape(stem) + r"-([0-9]+)")
    with reading_errors(Path(base)):
        names = os.listdir(base) if os.path.isdir(base) else []
    taken = [int(match[1][:12]) for name in names if (match := pattern.fullmatch(name))]
    return Path(base) / f"{stem}-{max([after, *taken]) + 1:03d}"


def at_free_name(path: Path, *, named: bool, create: Callable[[Path], _Created]) -> _Created:
    """The result of `create` for `path`, which comes from `run_path`; raises what `create` raises.

    A run that started at the same time may have taken the number of `path` in the meantime. Unless the user `named` the
    path, the next free number is used. It is always greater than the one that was tried, since the list of names may not
    show why that was taken: a file system may ignore case.
    """
    while True:
        try:
            return create(path)
        except TakenError:
            stem, _, number = path.name.rpartition("-")
            if named or not number.isdecimal():
                raise
            path = next_run_name(path.parent, stem, after=int(number))


def comparison_directory(path: Path, file: str, record: Mapping[str, Any]) -> None:
    """Create the directory of a new comparison, with `record` in `file`; raises `TakenError`."""
    atomic.claim_directory(
        path,
        lambda aside: atomic.write_json(aside / file, record),
        lambda taken: (
            f"{taken} exists. Continue it with --resume {shlex.quote(str(taken))}, or choose another --name."
        ),
    )


def refuse_taken(path: Path) -> None:
    """Raise `UsageError` when there is a run in `path`, saying how to continue it or what to do instead."""
    if not is_run(path):
        return
    info = _stored(path).info
    if info is not None and info.status == "finished":
        raise UsageError(f"there is a finished run in {path}. {after_the_end(path)}")
    raise UsageError(
        f"there is a run in {path} already. Continue it: mlxsched resume {path}; or choose another --run-dir or --name."
    )


def after_the_end(path: Path) -> str:
    """What can be done with a finished run."""
    return (
        f"Train it for longer: mlxsched extend {path} --epochs +1. Evaluate it: mlxsched eval {path}. To train its "
        "adapter with another schedule or other data, start a new run: mlxsched train --resume-adapter-file "
        f"{path / 'adapters' / 'adapters.safetensors'} --name NEW_NAME."
    )


def local_paths(config: Mapping[str, object], run: Path) -> dict[str, dict[str, str]]:
    """The local files that `config` names, for ``run.json``: absolute, and relative to the directory `run`.

    The relative form is found when the run was moved or copied together with its data.
    """
    found = {}
    for key in PATH_KEYS:
        value = config.get(key)
        if not isinstance(value, str) or value in _BUNDLED.get(key, ()):
            continue
        place = os.path.expanduser(value)
        if os.path.exists(place):
            place = os.path.abspath(place)
            found[key] = {"path": place, "from_run": os.path.relpath(place, os.path.realpath(run))}
    return found


def stored_config(
    run: RunDirectory, *, need: Collection[str] = ("data", "model"), **given: object
) -> dict[str, object]:
    """The config in ``run.json`` with the values `given` in place of its own (None: keep).

    Paths are those of the files that the run was started with, whatever the current directory is. Raises `UsageError`
    when one of those that the caller will `need` is gone, naming it and the flag that gives another.
    """
    config = {**run.info.config, **{key: value for key, value in given.items() if value is not None}}
    if given.get("data") is not None:
        config["hf_dataset"] = None
    for key, places in run.info.paths.items():
        replaced = given.get(key) is not None or (key == "data" and config.get("hf_dataset"))
        if key in PATH_KEYS and not replaced:
            found = _find(run, str(config.get(key)), places)
            if found is None and key in need:
                raise UsageError(_gone(run, key, places))
            config[key] = found or places["path"]
    return config


def _find(run: RunDirectory, written: str, places: Mapping[str, str]) -> str | None:
    """The path under which the file is found now; as it was written if that still leads there."""
    for place in (places["path"], _moved(run, places)):
        if os.path.exists(place):
            here = os.path.expanduser(written)
            return written if os.path.exists(here) and os.path.samefile(here, place) else place
    return None


def _moved(run: RunDirectory, places: Mapping[str, str]) -> str:
    return os.path.normpath(os.path.join(os.path.realpath(run.path), places["from_run"]))


def _gone(run: RunDirectory, key: str, places: Mapping[str, str]) -> str:
    return (
        f"the {key} of {run.path} was in {places['path']}, which no longer exists (nor does {_moved(run, places)}). "
        f"Give its new location with --{key}."
    )
