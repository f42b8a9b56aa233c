"""Entries of a cache folder: one directory each, listed, held while in use, and removed.

An entry is named by a hash of 32 hexadecimal digits; other directories in the folder are not ours and never touched. An
entry is in use while a process holds the advisory lock of its file ``.lock``. It was last used when its ``header.json`` was
last written or touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

HEADER = "header.json"
LOCK = ".lock"
MOST_BYTES = 32 * 10**9
SHARE_OF_DISK = 0.25
MOST_DAYS = 30
_GOING = ".gone-"
_NAME = re.compile(r"[0-9a-f]{32}")
_GONE = re.compile(re.escape(_GOING) + r"[0-9a-f]{12}")


@dataclass(frozen=True)
class Entry:
    """One entry: its size on disk in bytes, and the time of its last use in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def in_use(self) -> bool:
        """Whether a process holds it now."""
        if not (self.path / LOCK).exists():
            return False
        with contextlib.suppress(OSError):
            held = hold(self.path)
            if held is None:
                return True
            os.close(held)
        return False


def entries(folder: Path) -> list[Entry]:
    """The entries of ``folder``, the least recently used first; none if there is no such folder."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # another process may remove it meanwhile
                    found.append(_entry(path))
    return sorted(found, key=lambda entry: entry.used)


def _entry(path: Path) -> Entry:
    size = sum(file.lstat().st_size for file in path.rglob("*"))
    header = path / HEADER
    return Entry(path, size, (header if header.exists() else path).stat().st_mtime)


def hold(path: Path) -> int | None:
    """Hold the entry in the directory ``path`` until the descriptor is closed; None while another process holds it.

    Raises ``OSError`` if there is no such directory, or it cannot be written.
    """
    lock = path / LOCK
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), lock.stat()):  # else it was removed just before
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def remove(path: Path) -> bool:
    """Remove the entry in ``path`` unless it is held; returns whether it is gone."""
    try:
        held = hold(path)
        if held is None:
            return False
        try:
            discard(path)
        finally:
            os.close(held)
    except OSError:
        return not path.exists()
    return True


def discard(path: Path) -> None:
    """Remove an entry that the caller holds, so that no process finds a part of it."""
    aside = aside_of(path)
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def aside_of(path: Path) -> Path:
    """A name next to ``path`` for an entry that is not complete; `sweep` removes what a killed process leaves there."""
    return path.with_name(f"{_GOING}{secrets.token_hex(6)}")


def make_room(folder: Path, size: int) -> bool:
    """Whether ``size`` more bytes may go into ``folder``, after removing the least recently used entries if needed.

    The folder stays below 32 GB and below a quarter of the space that would be free without it. Entries that were not
    used for 30 days are always removed.
    """
    sweep(folder)
    left = []
    for entry in entries(folder):
        old = time.time() - entry.used > MOST_DAYS * 86400
        if not (old and remove(entry.path)):
            left.append(entry)
    total = sum(entry.size for entry in left)
    most = min(MOST_BYTES, int(SHARE_OF_DISK * (shutil.disk_usage(folder).free + total)))
    for entry in left:
        if size > most or total + size <= most:
            break
        if remove(entry.path):
            total -= entry.size
    return total + size <= most


def sweep(folder: Path) -> None:
    """Complete removals that were interrupted by a kill."""
    for path in folder.glob(f"{_GOING}*"):
        if _GONE.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)
