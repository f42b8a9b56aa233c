"""Writing files and directories so that a reader finds the old content or the new, never a part.

The recipe is the usual one of POSIX: write aside on the same file system, flush to the disk, rename over the
name, flush the directory. Whatever goes wrong with the disk becomes a `StorageError`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from mlxsched.errors import RunError

TEMPORARY_PREFIX = ".tmp-"

_FIXES = {
    errno.ENOSPC: "Free some space and resume the run.",
    errno.EDQUOT: "Your quota is used up: free some space and resume the run.",
    errno.EFBIG: "The file would be larger than this process may write (see `ulimit -f`).",
    errno.EROFS: "The file system is mounted read-only: choose another --run-dir.",
    errno.EACCES: "Give yourself permission to write there, or choose another --run-dir.",
    errno.EPERM: "Give yourself permission to write there, or choose another --run-dir.",
    errno.ENOENT: "A directory on the way was removed or renamed: put it back, or choose another --run-dir.",
    errno.ENOTDIR: "A file is where a directory should be: move it away, or choose another --run-dir.",
    errno.ELOOP: "A symbolic link is where a plain file should be: remove it.",
}


class StorageError(RunError):
    """The disk refused a write; ``reason`` is the ``errno`` (0 where there is none). What was there still is."""

    def __init__(self, message: str, reason: int = 0) -> None:
        super().__init__(message)
        self.reason = reason


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `StorageError` that names `path` and a fix."""
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        fix = _FIXES.get(number, "Check the disk, then resume the run.")
        text = f"Cannot write {path}: {error.strerror or error}. {fix}"
        raise StorageError(text, number) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by a file holding `content`, or leave it as it is and raise `StorageError`.

    The permissions of an existing file are kept. The directory must exist: one that was deleted during a run is
    a fault to report, not to paper over.
    """
    path = Path(path)
    aside = path.parent / _temporary_name(path.name)
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
    """`write_text` of `value` as indented JSON; a number that is not finite is a `ValueError`."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def new_directory(final: Path, fill: Callable[[Path], None]) -> Path:
    """Make the directory `final` with what `fill(temporary)` puts in it: there whole, or not at all.

    `fill` gets a fresh directory beside `final`. Its files are flushed before the rename, the parent after it.
    Raises `StorageError` when the disk refuses, and when `final` exists and isn't empty; whatever else `fill`
    raises goes through, but for `RuntimeError`, which is how MLX reports a failed write.
    """
    final = Path(final)
    aside = final.parent / _temporary_name(final.name)
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


def replace_directory(final: Path, fill: Callable[[Path], None]) -> Path:
    """Bring the flat directory `final` to what `fill(temporary)` writes, usable by others at any moment.

    POSIX has no portable way to swap two directories, and a symbolic link that is turned round breaks those who
    copy the directory. So files are replaced one at a time, each atomically, and a file whose content did not
    change is left alone. For an adapter that means: ``adapter_config.json`` stays, ``adapters.safetensors`` is
    exchanged in one rename, and whoever opens the pair finds two that belong together. A first version appears
    as a whole. Where several files do change, ``*.safetensors`` go last, and a reader in between may see new
    ones beside old ones.
    """
    final = Path(final)
    if not final.is_dir():
        return new_directory(final, fill)
    aside = final.parent / _temporary_name(final.name)
    with storage_errors(final):
        os.mkdir(aside)
        try:
            _fill(aside, fill, final)
            sync_tree(aside)
            _move_changed_files(aside, final)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    return final


def remove_directory(path: Path) -> None:
    """Remove a directory so that nobody finds a part of it under its name."""
    aside = path.parent / _temporary_name(path.name)
    with storage_errors(path):
        os.rename(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def remove_temporaries(directory: Path) -> None:
    """Remove what interrupted writes left in `directory`. Only for the one who holds the run's lock."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.name.startswith(TEMPORARY_PREFIX):
                _remove(entry)


def sync_file(descriptor: int) -> None:
    """Flush a file to the disk; on macOS also the disk's own cache, which plain ``fsync`` leaves alone."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is not None:
        with contextlib.suppress(OSError):  # some file systems don't know it; fsync is what they have
            fcntl.fcntl(descriptor, full_sync)
            return
    os.fsync(descriptor)


def sync_directory(path: Path) -> None:
    """Flush the names in a directory."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems may not offer it
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


def _temporary_name(name: str) -> str:
    return f"{TEMPORARY_PREFIX}{name}-{secrets.token_hex(6)}"


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
            f"Cannot write {final}: {reason}. Check the space on the disk, then resume."
        ) from error


def _move_changed_files(source: Path, target: Path) -> None:
    names = sorted(os.listdir(source), key=lambda name: (name.endswith(".safetensors"), name))
    for name in names:
        if not _same_content(source / name, target / name):
            os.replace(source / name, target / name)
    for name in set(os.listdir(target)) - set(names):
        (target / name).unlink()
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
