"""Checkpoints: one directory each, complete or absent, and verified before use.

::

    checkpoints/000100/    manifest.json, and the files that the writer put there

The manifest holds the size and the SHA-256 of every file. A checkpoint that does not match its manifest is skipped, and
the one before it is used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mlxsched.errors import RunError, UserError
from mlxsched.runs import atomic
from mlxsched.runs.json_file import open_plain_file, read_object, reading_errors

MANIFEST = "manifest.json"
_USUAL_FILES = ("adapters.safetensors", "best.safetensors", "optimizer.safetensors", "state.json")
_NAME = re.compile(r"[0-9]{6,12}")
_REPLACED = re.compile(re.escape(atomic.TEMPORARY_PREFIX) + r"replaced-([0-9]{6,12})")


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the number of updates made, its directory, and the `info` that was stored with it."""

    update: int
    path: Path
    info: Mapping[str, object] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints below `directory`, which is created with the first one.

    Reading changes nothing. Only the holder of the run's lock may write, prune and `recover`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)

    def path(self, update: int) -> Path:
        """The directory of the checkpoint of `update`, which may not exist: ``checkpoints/000100``."""
        return self.directory / f"{update:06d}"

    def updates(self) -> list[int]:
        """The updates that have a checkpoint directory, in order; their content is not verified."""
        try:
            entries = list(os.scandir(self.directory))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise UserError(f"Cannot read {self.directory}: {error.strerror}.") from error
        plain = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        names = [name for name in plain if _NAME.fullmatch(name)]
        return sorted(int(name) for name in names if self.path(int(name)).name == name)

    def write(
        self, update: int, fill: Callable[[Path], None], *, info: Mapping[str, object] | None = None
    ) -> Path:
        """Write the checkpoint of `update` (the number of updates made) and return its directory.

        `fill` writes plain files into the directory that it receives; `info` is stored in the manifest. A checkpoint of
        the same update is replaced, and at no moment are both missing. Raises `StorageError`; the other checkpoints
        are unchanged.
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
        """The checkpoint of `update`, after all its files have been verified.

        Raises `RunError` that says what is wrong with it.
        """
        path = self.path(update)
        try:
            return _checked(path, update)
        except UserError as error:
            raise RunError(str(error)) from error

    def latest_good(
        self, note: Callable[[str], None] = lambda text: None, up_to: int | None = None
    ) -> Checkpoint | None:
        """The last checkpoint (of at most `up_to` updates) that is intact, or None; `note` names each one skipped."""
        for update in reversed(self.updates()):
            if up_to is not None and update > up_to:
                continue
            try:
                return self.load(update)
            except RunError as error:
                note(f"Skipped checkpoint {update}: {error}")
        return None

    def prune(self, keep_last: int, good: int | None = None, trunk: int | None = None) -> list[int]:
        """Remove all but the last `keep_last` (at least 1), the last one of at most `good` updates, and that of `trunk`.

        Returns the updates whose checkpoints were removed.
        """
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1; got {keep_last}")
        updates = self.updates()
        kept = {
            max((update for update in updates if good is not None and update <= good), default=None),
            trunk,
        }
        return self._remove(update for update in updates[:-keep_last] if update not in kept)

    def remove_after(self, update: int) -> list[int]:
        """Remove those after `update`, the last one first; returns the updates that were removed."""
        return self._remove(later for later in reversed(self.updates()) if later > update)

    def recover(self) -> None:
        """Clean up after an interrupted write: restore a checkpoint that was being replaced, remove temporaries."""
        with suppress(FileNotFoundError, NotADirectoryError):
            for entry in os.scandir(self.directory):
                match = _REPLACED.fullmatch(entry.name)
                if match and not (self.directory / match[1]).exists():
                    os.rename(entry.path, self.directory / match[1])
        atomic.remove_temporaries(self.directory)

    def _replace(self, final: Path, fill: Callable[[Path], None]) -> Path:
        """Complete the new one before the old one is moved; `recover` finds the old one by its name."""
        old = self.directory / f"{atomic.TEMPORARY_PREFIX}replaced-{final.name}"
        new = self.directory / f"{atomic.TEMPORARY_PREFIX}new-{final.name}"
        with atomic.storage_errors(final):
            for stale in (old, new):
                if stale.exists():
                    _remove_directory(stale)
            atomic.new_directory(new, fill)
            os.rename(final, old)
            os.rename(new, final)
            atomic.sync_directory(self.directory)
        _remove_directory(old)
        return final

    def _remove(self, updates: Iterable[int]) -> list[int]:
        removed = []
        for update in updates:
            _remove_directory(self.path(update))
            removed.append(update)
        return removed


def _remove_directory(path: Path) -> None:
    """Remove the files that we wrote; ``kept-000100`` holds what a user added."""
    atomic.remove_files(path, _our_names(path), leftovers=f"kept-{path.name.rpartition('-')[2]}")


def _our_names(path: Path) -> set[str]:
    """The files of the manifest; those that checkpoints have today when the manifest is damaged."""
    try:
        files = read_object(path / MANIFEST).get("files")
    except UserError:
        files = None
    return {MANIFEST, *(files if isinstance(files, dict) else _USUAL_FILES)}


def _manifest(directory: Path, update: int, info: Mapping[str, object]) -> dict[str, object]:
    files = {name: _measured(directory / name) for name in sorted(os.listdir(directory))}
    if not files:
        raise ValueError("a checkpoint needs at least one file")
    return {"format": 1, "update": update, "info": dict(info), "files": files}


def _measured(path: Path) -> dict[str, object]:
    with open(open_plain_file(path), "rb") as file, reading_errors(path):
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _is_unchanged(path: Path, written: object) -> bool:
    """Whether the file is as the manifest says; one of another size, which may be gigabytes, is not read."""
    with open(open_plain_file(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
    return isinstance(written, dict) and written.get("bytes") == size and _measured(path) == written


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
    """Raise `RunError` unless every file of the manifest is there, unchanged.

    Other plain files (a ``.DS_Store``) are ignored. Links and pipes are refused whether they are listed or not: a reader
    would follow the first and wait for the second.
    """
    if not isinstance(promised, dict) or not promised:
        raise RunError(f"{path / MANIFEST} lists no files.")
    for name, written in promised.items():
        if os.path.basename(name) != name or name in (".", ".."):
            raise RunError(f"{path / MANIFEST} names a file outside its directory: {name!r}.")
        if not _is_unchanged(path / name, written):
            raise RunError(f"{path} is damaged: {name!r} differs from what was written.")
    with reading_errors(path):
        for entry in os.scandir(path):
            if not entry.is_file(follow_symlinks=False) and not entry.is_dir(follow_symlinks=False):
                raise RunError(f"{entry.path} is not a regular file. Remove it.")
