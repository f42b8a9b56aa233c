"""Training commands with several workers: worker 0 runs the command, the others follow its orders."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note
from mlxsched.errors import MlxschedError

if TYPE_CHECKING:
    from mlxsched.config import LoadedConfig
    from mlxsched.training.session import Session
    from mlxsched.training.workers.launch import Launch
    from mlxsched.training.workers.world import World

Function = Callable[..., Any]
_RANKS = ("MLX_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK")  # of a worker, known before it is connected


def worker_options(function: Function) -> Function:
    """Add ``--workers`` and ``--worker-timeout``; both are for `run_as_worker`."""
    function = click.option(
        "--worker-timeout",
        metavar="SECONDS",
        type=click.FloatRange(min=1),
        help="With several workers: give up if one does not answer for this long. [600]",
    )(function)
    return click.option(
        "--workers",
        metavar="N",
        type=click.IntRange(min=1),
        help="Refuse to start unless mlx.launch has started N workers; see docs/distributed.md.",
    )(function)


def run_as_worker(options: dict[str, Any], lead: Callable[[World], None]) -> int:
    """Call ``lead`` in a single process or in worker 0, else follow worker 0; returns the exit code.

    ``options`` are those of `worker_options` and ``trust_remote_code``, which no other machine may decide.
    """
    from mlxsched.training.workers.launch import connect
    from mlxsched.training.workers.world import TIMEOUT

    timeout = options["worker_timeout"] or TIMEOUT
    world = connect(options["workers"], timeout=timeout, on_wait=_say_waiting)
    if world.rank:
        return _follow(world, trusted=bool(options["trust_remote_code"]))
    code = 1
    try:
        lead(world)
        code = 0
    except MlxschedError as error:
        code = error.exit_code
        raise
    except KeyboardInterrupt:
        code = 130
        raise
    finally:
        with suppress(MlxschedError):  # lost workers cannot be told
            world.tell({"do": "end", "code": code})
    return 0


def _say_waiting(launch: Launch) -> None:
    ranks = {os.environ[name] for name in _RANKS if name in os.environ}
    if ranks == {"0"}:
        note(f"Connecting {launch.workers} workers by {launch.backend} ...")


def share_config(world: World, loaded: LoadedConfig) -> LoadedConfig:
    """Send the leader's configuration to the others, who use it in place of their own; returns it."""
    world.tell({"do": "prepare", "config": loaded.config.to_dict(), "origins": loaded.origins})
    return loaded


def meet(session: Session, world: World) -> Session:
    """``session`` as the leader of the others, once they have planned the same; see `mlxsched.training.workers.meeting`."""
    from mlxsched.training.workers.meeting import lead

    if not world.alone:
        note(f"Waiting until all {world.size} workers have loaded the model and the data ...")
    return lead(session, world)


def _follow(world: World, *, trusted: bool) -> int:
    # Ctrl-C reaches all processes of a terminal. The leader decides what it means and tells the others.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        return _obey(world, trusted)
    except MlxschedError as error:
        error.args = (f"worker {world.rank} of {world.size}: {error}", *error.args[1:])
        raise


def _obey(world: World, trusted: bool) -> int:
    from mlxsched.config.schema import RunConfig
    from mlxsched.platform.paths import cache_home
    from mlxsched.training.session import prepare
    from mlxsched.training.workers.follower import follow
    from mlxsched.training.workers.meeting import join

    order = world.told(patient=True)
    if order["do"] == "end":
        return int(order["code"])
    config = RunConfig(**{**order["config"], "adapter_path": None, "trust_remote_code": trusted})
    session = prepare(config, order["origins"], cache=cache_home())
    order = world.told(patient=True)
    if order["do"] == "end":
        return int(order["code"])
    return follow(join(session, world, order), _existing(cache_home()))


def _existing(directory: Path) -> Path | None:
    """``directory``, created if needed; None where that is not possible."""
    with suppress(OSError):
        directory.mkdir(parents=True, exist_ok=True)
        return directory
    return None
