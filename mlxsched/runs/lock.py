"""One process at a time in a run directory, by an advisory lock that is released when its owner ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from mlxsched.errors import UsageError
from mlxsched.runs.atomic import StorageError, storage_errors, write_all

LOCK_NAME = ".lock"

# `holder` takes the lock for an instant to see whether it is free, so a first refusal proves nothing.
_TRIES, _PAUSE = 5, 0.02


class RunLock:
    """``with RunLock(directory): ...`` holds the lock of a run directory, or raises `UsageError` at once.

    The lock is ``flock`` on the file ``.lock``. The kernel releases it when the process ends, however it ends, so no
    stale lock is left. The file itself stays, since removing it would let two processes lock two different files; its
    text names the owner and means nothing once the lock is free.
    """

    def __init__(self, directory: Path) -> None:
        self._path = Path(directory) / LOCK_NAME
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock. Raises `UsageError` when another process, or another `RunLock`, holds it."""
        with storage_errors(self._path):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            self._lock(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        _write_owner(descriptor)

    def release(self) -> None:
        """Release the lock; does nothing when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, descriptor: int) -> None:
        try:
            for _ in range(_TRIES):
                if _taken(descriptor):
                    return
                time.sleep(_PAUSE)
            raise UsageError(
                f"{self._path.parent} is in use by {_owner(descriptor)}. "
                "Wait for it, stop it, or choose another --run-dir."
            )
        except OSError as error:
            raise StorageError(
                f"{self._path.parent} cannot be locked: {error.strerror}. "
                "Put the run directory on a local disk with --run-dir.",
                error.errno or errno.ENOLCK,
            ) from error


def _taken(descriptor: int) -> bool:
    """Try once to take the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(directory: Path) -> bool:
    """Whether a process holds the lock of a run directory now; a directory that cannot be read counts as free."""
    return holder(directory) is not None


def holder(directory: Path) -> tuple[int, str] | None:
    """The process and the host that hold the lock of a run directory; None when nobody does, or it cannot be read.

    An owner that the lock does not name is process 0.
    """
    try:
        descriptor = os.open(Path(directory) / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return _named(descriptor) or (0, "")
    finally:
        os.close(descriptor)
    return None


def _write_owner(descriptor: int) -> None:
    """Write who holds the lock; a full disk is ignored, since only the lock itself matters."""
    try:
        os.ftruncate(descriptor, 0)
        text = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        write_all(descriptor, text.encode())
    except OSError:
        pass


def _owner(descriptor: int) -> str:
    named = _named(descriptor)
    if named is None:
        return "another process"
    pid, host = named
    return f"process {pid}" if host == socket.gethostname() else f"process {pid} on {host!r}"


def _named(descriptor: int) -> tuple[int, str] | None:
    """The process and the host that are written in the lock."""
    try:
        record = json.loads(os.pread(descriptor, 1000, 0))
        return int(record["pid"]), str(record["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
