"""How this process was started: alone, or as one of several workers by ``mlx.launch``, ``mpirun`` or by hand."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from mlxsched.errors import UsageError
from mlxsched.text import counted
from mlxsched.training.workers.world import ALONE, TIMEOUT, World

CONNECT_SECONDS = 300  # in which all workers must have been started
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # Open MPI; MPICH and Intel MPI
_HOW = "Start all workers with `mlx.launch -n 2 mlxsched train ...` or with --hostfile (docs/distributed.md)."


class Launch(NamedTuple):
    """A backend of MLX, and the number of workers that the launcher has started."""

    backend: str
    workers: int


def launch_of(environ: Mapping[str, str]) -> Launch | None:
    """What a launcher left in the environment; None for a process on its own.

    Raises `UsageError` where it is incomplete, since MLX would then train in every process for itself.

    >>> launch_of({"MLX_RANK": "1", "MLX_WORLD_SIZE": "4", "NCCL_HOST_IP": "10.0.0.1"})
    Launch(backend='nccl', workers=4)
    >>> launch_of({}) is None
    True
    """
    if "MLX_HOSTFILE" in environ and "MLX_RANK" in environ:
        return Launch("ring", _listed("MLX_HOSTFILE", environ))
    if "MLX_IBV_DEVICES" in environ and "MLX_RANK" in environ:
        return Launch("jaccl", _listed("MLX_IBV_DEVICES", environ))
    if "MLX_WORLD_SIZE" in environ and "MLX_RANK" in environ:
        return Launch("nccl", _number("MLX_WORLD_SIZE", environ))
    for name in _MPI_SIZES:
        if name in environ:
            return Launch("mpi", _number(name, environ))
    if "MLX_RANK" in environ:
        raise UsageError(
            f"MLX_RANK is {environ['MLX_RANK']}, but neither MLX_HOSTFILE nor MLX_WORLD_SIZE says who the other workers "
            f"are. {_HOW}"
        )
    return None


def connect(
    wanted: int | None = None,
    *,
    timeout: float = TIMEOUT,
    on_wait: Callable[[Launch], None] = lambda launch: None,
) -> World:
    """The workers that this process was started with; `ALONE` for a process on its own.

    Args:
        wanted: how many there should be; None for as many as the launcher says.
        timeout: seconds after which a worker that does not answer is given up.
        on_wait: called before a wait for the others. The process ends with exit code 1 if they have not come after
            `CONNECT_SECONDS`.

    Raises:
        UsageError: there are fewer or more.
    """
    launch = launch_of(os.environ)
    workers = launch.workers if launch else 1
    if wanted not in (None, workers):
        raise UsageError(f"--workers {wanted}, but {counted(workers, 'worker')} came up. {_HOW}")
    if launch is None or workers == 1:
        return ALONE
    on_wait(launch)
    before = _sockets()
    group = _group(launch)
    if group.size() != workers:
        raise UsageError(
            f"{launch.backend}: {counted(workers, 'worker')} were started, but MLX sees {group.size()}. {_HOW}"
        )
    sockets = _sockets() - before if launch.backend == "ring" else set()
    return World(group, sockets=sorted(sockets), timeout=timeout)


def _group(launch: Launch) -> mx.distributed.Group:
    # MLX waits for the others without limit, and holds the interpreter's lock meanwhile: no handler and no thread of
    # ours could end the wait. The timer of faulthandler and the default effect of Ctrl-C need no lock.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(CONNECT_SECONDS, exit=True, file=nowhere)
        try:
            return mx.distributed.init(strict=True, backend=launch.backend)
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"{counted(launch.workers, 'worker')} could not be connected by {launch.backend}: {error}. All workers "
                "must start within a few seconds, the addresses and ports must be right, and no firewall in between."
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.signal(signal.SIGINT, handler)


def _sockets() -> set[int]:
    """The descriptors of this process that are sockets."""
    found = set()
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # the listing's own descriptor is closed by now
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                found.add(int(name))
    return found


def _listed(name: str, environ: Mapping[str, str]) -> int:
    """The number of entries of the JSON list in the file that a variable names; mlx.launch -n 1 leaves it empty."""
    path = Path(environ[name])
    try:
        text = path.read_text(encoding="utf-8")
        listed = json.loads(text) if text.strip() else [[]]
    except (OSError, ValueError) as error:
        raise UsageError(f"{name}: {path} cannot be read: {error}. {_HOW}") from error
    if not isinstance(listed, list) or not listed:
        raise UsageError(f"{name}: {path} must hold a list with an entry for each worker. {_HOW}")
    return len(listed)


def _number(name: str, environ: Mapping[str, str]) -> int:
    text = environ[name]
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"{name} must be the number of workers; got {text!r}. {_HOW}")
    return int(text)
