"""How this process was started: alone, or as one of several workers by ``mlx.launch``, ``mpirun`` or by hand."""

from __future__ import annotations

import faulthandler
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from mlxsched.errors import UsageError
from mlxsched.text import counted
from mlxsched.training.workers.world import ALONE, TIMEOUT, World, opened_sockets

CONNECT_SECONDS = 300  # in which all workers must have been started
BACKENDS = ("ring", "jaccl", "nccl", "mpi")
_MPI_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # Open MPI; MPICH and Intel MPI
_HOW = "Start all workers with `mlx.launch -n 2 mlxsched train ...` or with --hostfile (docs/distributed.md)."


class Launch(NamedTuple):
    """A backend of MLX, and how many workers the launcher said that there are."""

    backend: str
    workers: int


def available_backends() -> list[str]:
    """The backends of MLX that work on this machine."""
    return [backend for backend in BACKENDS if mx.distributed.is_available(backend)]


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


def connect(wanted: int | None = None, *, timeout: float = TIMEOUT) -> World:
    """The workers that this process was started with; `ALONE` for a process on its own.

    Args:
        wanted: how many there should be; None for as many as the launcher says.
        timeout: seconds after which a worker that does not answer is given up.

    Raises:
        UsageError: there are fewer or more.
    """
    launch = launch_of(os.environ)
    workers = launch.workers if launch else 1
    if wanted not in (None, workers):
        raise UsageError(f"--workers {wanted}, but {counted(workers, 'worker')} came up. {_HOW}")
    if launch is None or workers == 1:
        return ALONE
    group, sockets = opened_sockets(lambda: _group(launch))
    if group.size() != workers:
        raise UsageError(
            f"{launch.backend}: {counted(workers, 'worker')} were started, but MLX sees {group.size()}. {_HOW}"
        )
    return World(group, sockets=sockets if launch.backend == "ring" else (), timeout=timeout)


def _group(launch: Launch) -> mx.distributed.Group:
    # MLX waits for the others without limit, and holds the interpreter's lock meanwhile, so no thread of ours could end
    # the wait. The timer of faulthandler needs no lock.
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(CONNECT_SECONDS, exit=True, file=nowhere)
        try:
            return mx.distributed.init(strict=True, backend=launch.backend)
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"{counted(launch.workers, 'worker')} could not be connected by {launch.backend}: {error}. Check the "
                "addresses and ports of the hostfile, that no firewall is between the machines, and that every worker "
                "was started."
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()


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
