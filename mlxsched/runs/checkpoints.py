"""Checkpoints: one directory each, there whole or not at all, and checked before it is trusted.

::

    checkpoints/000100/    manifest.json, and whatever the writer put there

The manifest holds the size and the SHA-256 of every file. A checkpoint that doesn't match its manifest is passed
over, and the one before it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlxsched.errors import RunError, UserError
from mlxsched.runs import atomic
from mlxsched.runs.json_file import open_plain_file, read_object, reading_errors

MANIFEST = "manifest.json"
_NAME = re.compile(r"[0-9]{6,12}")
_REPLACED = re.compile(re.escape(atomic.TEMPORARY_PREFIX) + r"replaced-([0-9]{6,12})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole: the number of updates it holds, where it is, and what was noted of it."""

    update: int
    path: Path
    info: Mapping[str, object] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints below `directory`, which is made with the first one.

    Reading never changes anything. Writing, pruning and `recover` are for the holder of the run's lock.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def path(self, update: int) -> Path:
        """Where the checkpoint of `update` is or would be: ``checkpoints/000100``."""
        return self.directory / f"{update:06d}"

    def updates(self) -> list[int]:
        """The updates that have a checkpoint directory, in order; what is in them is not looked at."""
        try:
            entries = list(os.scandir(self.directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        plain = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        names = [name for name in plain if _NAME.fullmatch(name)]
        return sorted(int(name) for name in names if self.path(int(name)).name == name)

    def write(
        self, update: int, fill: Callable[[Path], None], *, info: Mapping[str, object] | None = None
    ) -> Path:
        """Write the checkpoint of `update` (the number of updates made) and return its directory.

        `fill` writes plain files into the directory that it gets; `info` is kept in the manifest. One of the same
        update is replaced, and never lost on the way. Raises `StorageError`; the other checkpoints stay.
        """

        def fill_and_list(directory: Path) -> None:
            fill(directory)
            atomic.write_json(directory / MANIFEST, _manifest(directory, update, info or {}))

        final = self.path(update)
        with atomic.storage_errors(self.directory):
            self.directory.mkdir(exist_ok=True)
        if not final.exists():
            return atomic.new_directory(final, fill_and_list)
        return self._replace(final, fill_and_list)

    def load(self, update: int) -> Checkpoint:
        """The checkpoint of `update`, after all its files have been checked.

        Raises `RunError` saying what is wrong with it.
        """
        path = self.path(update)
        try:
            return _checked(path, update)
        except UserError as error:
            raise RunError(str(error)) from error

    def latest_good(self, note: Callable[[str], None] = lambda text: None) -> Checkpoint | None:
        """The last checkpoint that is whole, or None; `note` is told of each one that is passed over."""
        for update in reversed(self.updates()):
            try:
                return self.load(update)
            except RunError as error:
                note(f"Passed over checkpoint {update}: {error}")
        return None

    def prune(self, keep_last: int, keep: int | None = None) -> list[int]:
        """Remove all but the last `keep_last` (at least 1) and that of the update `keep`; returns the removed."""
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1; got {keep_last}")
        return self._remove(update for update in self.updates()[:-keep_last] if update != keep)

    def remove_after(self, update: int) -> list[int]:
        """Remove those beyond `update`, the last one first; returns the removed."""
        return self._remove(later for later in reversed(self.updates()) if later > update)

    def recover(self) -> None:
        """Clean up after an interrupted write: put a checkpoint back that was being replaced, drop the rest."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.directory):
                match = _REPLACED.fullmatch(entry.name)
                if match and not (self.directory / match[1]).exists():
                    os.rename(entry.path, self.directory / match[1])
        atomic.remove_temporaries(self.directory)

    def _replace(self, final: Path, fill: Callable[[Path], None]) -> Path:
        """The new one is complete before the old one is moved, and `recover` knows where the old one is."""
        old = self.directory / f"{atomic.TEMPORARY_PREFIX}replaced-{final.name}"
        new = self.directory / f"{atomic.TEMPORARY_PREFIX}new-{final.name}"
        with atomic.storage_errors(final):
            for stale in (old, new):
                if stale.exists():
                    atomic.remove_directory(stale)
            atomic.new_directory(new, fill)
            os.rename(final, old)
            os.rename(new, final)
            atomic.sync_directory(self.directory)
        atomic.remove_directory(old)
        return final

    def _remove(self, updates: Iterator[int]) -> list[int]:
        removed = []
        for update in updates:
            atomic.remove_directory(self.path(update))
            removed.append(update)
        return removed


def _manifest(directory: Path, update: int, info: Mapping[str, object]) -> dict[str, object]:
    files = {name: _measured(directory / name) for name in sorted(os.listdir(directory))}
    if not files:
        raise ValueError("a checkpoint needs at least one file")
    return {"format": 1, "update": update, "info": dict(info), "files": files}


def _measured(path: Path) -> dict[str, object]:
    with open(open_plain_file(path), "rb") as file, reading_errors(path):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _checked(path: Path, update: int) -> Checkpoint:
    if path.is_symlink() or not path.is_dir():
        raise RunError(f"{path} is not a directory.")
    manifest = read_object(path / MANIFEST)
    info = manifest.get("info")
    if manifest.get("update") != update or not isinstance(info, dict):
        raise RunError(f"{path / MANIFEST} does not belong to update {update}.")
    _compare(path, manifest.get("files"))
    return Checkpoint(update, path, info)


def _compare(path: Path, promised: object) -> None:
    """Every file of the manifest must be there, unchanged. Others (a ``.DS_Store``) are nothing to us."""
    if not isinstance(promised, dict) or not promised:
        raise RunError(f"{path / MANIFEST} lists no files.")
    for name, written in promised.items():
        if os.path.basename(name) != name or name in (".", ".."):
            raise RunError(f"{path / MANIFEST} names a file outside its directory: {name!r}.")
        if _measured(path / name) != written:
            raise RunError(f"{path} is damaged: {name!r} is not as it was written.")
