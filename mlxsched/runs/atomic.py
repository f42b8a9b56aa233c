"""Atomic writes: a reader finds the old content or the new one, never a part of either.

This is the usual POSIX recipe: write a temporary file on the same file system, flush it to the disk, rename it over the
name, flush the directory. Disk errors become a `StorageError`.

Nothing here removes a file that mlxsched did not write: files are replaced by name, and only temporaries whose names
match `_TEMPORARY` are cleaned up.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mlxsched.errors import RunError, UsageError

TEMPORARY_PREFIX = ".tmp-"
# A user may have a `.tmp-notes` of their own: only the names that `temporary_name` makes, and the two of a checkpoint
# that is being replaced, are ours to remove.
_TEMPORARY = re.compile(r"\.tmp-(.+-[0-9a-f]{12}|(new|replaced)-[0-9]{6,12})")

_FIXES = {
    errno.ENOSPC: "Free some space and resume the run.",
    errno.EDQUOT: "Your disk quota is used up: free some space and resume the run.",
    errno.EFBIG: "The file would exceed the size limit of this process: see `ulimit -f`.",
    errno.EROFS: "The file system is mounted read-only: choose another --run-dir.",
    errno.EACCES: "Get permission to write there, or choose another --run-dir.",
    errno.EPERM: "Get permission to write there, or choose another --run-dir.",
    errno.ENOENT: "A directory on that path was removed or renamed: restore it, or choose another --run-dir.",
    errno.ENOTDIR: "A file is where a directory should be: move it away, or choose another --run-dir.",
    errno.ELOOP: "A symbolic link is where a plain file should be: remove it.",
    errno.ENAMETOOLONG: "The name is too long: choose a shorter --run-dir or --name.",
}


class StorageError(RunError):
    """A write failed and left the previous content in place; ``reason`` is the ``errno``, or 0."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


class TakenError(UsageError):
    """The name of a new directory is taken, perhaps by another process in the meantime."""


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` raised in the block into a `StorageError` that names `path` and a fix."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        fix = _FIXES.get(number, "Check the disk, then resume the run.")
        text = f"Cannot write {path}: {error.strerror or error}. {fix}"
        raise StorageError(text, number) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by a file that holds `content`, or leave it unchanged and raise `StorageError`.

    The permissions of an existing file are kept. The directory must exist: when one is deleted during a run, that is
    reported and not hidden by creating it again.
    """
    path = Path(path)
    aside = path.parent / temporary_name(path.name)
    with storage_errors(path):
        try:
            _write_new_file(aside, content, mode=_mode_of(path))
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` of `content` as UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON in UTF-8; a number that is not finite is a `ValueError`."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A lone surrogate, as a stranger's file may hold, has no UTF-8; written as \udc80, it is a JSON escape.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def new_directory(final: Path, fill: Callable[[Path], None]) -> Path:
    """Create the directory `final` with what `fill(temporary)` writes: completely, or not at all.

    `fill` receives a new directory next to `final`. Its files are flushed before the rename, the parent after it.
    Raises `StorageError` when a write fails, and when `final` exists and is not empty. Other exceptions of `fill` are
    passed on, except `RuntimeError`, which is how MLX reports a failed write.
    """
    final = Path(final)
    aside = final.parent / temporary_name(final.name)
    with storage_errors(final):
        os.mkdir(aside)
        try:
            _fill(aside, fill, final)
            sync_tree(aside)
            os.rename(aside, final)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        sync_directory(final.parent)
    return final


def claim_directory(final: Path, fill: Callable[[Path], None], taken: Callable[[Path], str]) -> None:
    """Like `new_directory`, with its parents; of several processes that claim the same name, one gets it.

    Raises `TakenError`, with the message ``taken(final)``, when `final` exists and is not an empty directory.
    """
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    try:
        new_directory(final, fill)
    except StorageError as error:
        if error.reason in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR) and os.path.lexists(final):
            raise TakenError(taken(final)) from error
        raise


def replace_directory(final: Path, fill: Callable[[Path], None]) -> Path:
    """Update the flat directory `final`, which belongs to a run, with the files that `fill(temporary)` writes.

    The directory is usable at any moment. POSIX has no portable way to exchange two directories, and a symbolic link
    that is redirected breaks tools that copy the directory. So files are replaced one at a time, each atomically, and
    a file whose content did not change is left alone. For an adapter that means: ``adapter_config.json`` stays,
    ``adapters.safetensors`` changes in one rename, and the two always belong together. The first version appears as a
    whole. When several files do change, ``*.safetensors`` are replaced last, and a reader may see new files next to
    old ones for a moment. Files that `fill` does not write are kept.
    """
    final = Path(final)
    if not final.is_dir():
        return new_directory(final, fill)
    _replace_files(final, fill, final.parent / temporary_name(final.name))
    return final


def replace_files(directory: Path, names: Iterable[str], fill: Callable[[Path], None]) -> None:
    """Replace the files `names` in `directory`, which may be the user's own, and touch nothing else in it.

    `directory` is created if needed. `fill(temporary)` writes the files; each is replaced atomically, in the order
    that `replace_directory` describes. The temporary directory is made inside `directory`, whose parent may be on
    another file system or not writable.

    Raises `StorageError` when a write fails, and `ValueError` when `fill` writes another name.
    """
    directory, allowed = Path(directory), set(names)

    def checked_fill(aside: Path) -> None:
        fill(aside)
        others = sorted(set(os.listdir(aside)) - allowed)
        if others:
            raise ValueError(f"only {sorted(allowed)} may be written to {directory}; got {others}")

    with storage_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    _replace_files(directory, checked_fill, directory / temporary_name("files"))


def _replace_files(final: Path, fill: Callable[[Path], None], aside: Path) -> None:
    with storage_errors(final):
        os.mkdir(aside)
        try:
            _fill(aside, fill, final)
            sync_tree(aside)
            _move_changed_files(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def remove_files(directory: Path, names: Iterable[str], *, leftovers: str) -> None:
    """Remove a directory of ours that holds the files `names`, so that nobody finds a part of it under its name.

    When a user has put other files into it, the directory is renamed to `leftovers` (with a number if that is taken) and
    keeps them.
    """
    ours = {*names, ".DS_Store"}
    with storage_errors(directory):
        if set(os.listdir(directory)) <= ours:
            aside = directory.parent / temporary_name(directory.name)
            os.rename(directory, aside)
            shutil.rmtree(aside, ignore_errors=True)
            return
        kept = _free_name(directory.parent / leftovers)
        os.rename(directory, kept)
        for name in ours:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                (kept / name).unlink()


def remove_temporaries(directory: Path) -> None:
    """Remove what interrupted writes left in `directory`. Only the holder of the run's lock may call this."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if _TEMPORARY.fullmatch(entry.name):
                _remove(entry)


def sync_file(descriptor: int) -> None:
    """Flush a file to the disk; on macOS also the disk's own cache, which plain ``fsync`` does not."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        with contextlib.suppress(OSError):  # not every file system supports it; all have fsync
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Flush the entries of a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # as some network file systems say
            raise
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush every file below `directory`, and the directories themselves."""
    for folder, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                sync_file(descriptor)
            finally:
                os.close(descriptor)
        sync_directory(Path(folder))


def temporary_name(name: str) -> str:
    """A name for the temporary form of `name`; long names are cut, since file systems allow 255 bytes."""
    return f"{TEMPORARY_PREFIX}{name[:50]}-{secrets.token_hex(6)}"


def _free_name(path: Path) -> Path:
    number = 2
    free = path
    while os.path.lexists(free):
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free


def _mode_of(path: Path) -> int | None:
    try:
        return stat.S_IMODE(os.lstat(path).st_mode)
    except FileNotFoundError:
        return None


def _write_new_file(path: Path, content: bytes, mode: int | None) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        if mode is not None:
            os.fchmod(descriptor, mode)
        write_all(descriptor, content)
        sync_file(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes) -> None:
    """``os.write`` until all of `content` is written."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _fill(aside: Path, fill: Callable[[Path], None], final: Path) -> None:
    try:
        fill(aside)
    except RuntimeError as error:
        reason = str(error).rstrip(".")
        raise StorageError(
            f"Cannot write {final}: {reason}. Check the free space on the disk, then resume the run."
        ) from error


def _move_changed_files(source: Path, target: Path) -> None:
    names = sorted(os.listdir(source), key=lambda name: (name.endswith(".safetensors"), name))
    for name in names:
        if not _same_content(source / name, target / name):
            os.replace(source / name, target / name)
    sync_directory(target)


def _same_content(one: Path, other: Path) -> bool:
    if other.is_symlink() or not other.is_file() or one.stat().st_size != other.stat().st_size:
        return False
    return one.read_bytes() == other.read_bytes()


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        os.unlink(entry.path)
