"""Entries of a cache folder: directories of their own, looked at, held while in use, and removed.

An entry is in use while somebody has the advisory lock of its file ``.lock``. When it was last used is when its
``header.json`` was last written or touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
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


@dataclass(frozen=True)
class Entry:
    """One entry: its size on disk in bytes, and when it was last used, in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def in_use(self) -> bool:
        """Whether some process holds it now."""
        if not (self.path / LOCK).exists():
            return False
        with contextlib.suppress(OSError):
            held = hold(self.path)
            if held is None:
                return True
            os.close(held)
        return False


def entries(folder: Path) -> list[Entry]:
    """What is in ``folder``, the least recently used first; nothing where there is no such folder."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
                with contextlib.suppress(OSError):  # another process may be tidying up too
                    found.append(_entry(path))
    return sorted(found, key=lambda entry: entry.used)


def _entry(path: Path) -> Entry:
    size = sum(file.lstat().st_size for file in path.rglob("*"))
    header = path / HEADER
    return Entry(path, size, (header if header.exists() else path).stat().st_mtime)


def hold(path: Path) -> int | None:
    """Take the entry in the directory ``path`` until the descriptor is closed; None while another has it.

    Raises ``OSError`` where there is no such directory, or it can't be written in.
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
    """Remove the entry in ``path`` if nobody holds it, and say whether it is gone."""
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
    """Remove an entry that the caller holds, so that nobody finds a part of it."""
    aside = path.with_name(f"{_GOING}{secrets.token_hex(6)}")
    path.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def make_room(folder: Path, size: int) -> bool:
    """Whether ``size`` more bytes may go into ``folder``, after removing what was not used for longest.

    All of it stays below 32 GB and a quarter of what the disk has free without it; what was not used for 30 days
    goes anyway.
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
    """Remove what a process that was killed while it removed an entry has left."""
    for path in folder.glob(f"{_GOING}*"):
        shutil.rmtree(path, ignore_errors=True)
