"""``mlxsched cooldown``: end a run with a decay, whether it is running or was stopped."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, say
from mlxsched.cli.resume import resume_options, session_of
from mlxsched.cli.workers import run_as_worker
from mlxsched.errors import RunError, UsageError
from mlxsched.runs.requests import SHAPES

if TYPE_CHECKING:
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.runs.requests import CooldownAsked, Request
    from mlxsched.training.workers.world import World

POLL = 0.1  # seconds between checks for the answer


@click.command()
@click.argument("run", type=Path)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Updates of the decay. By default a fifth of those made, at least 10, at most those left.",
)
@click.option("--shape", type=click.Choice(SHAPES), default=SHAPES[0], help="The decay. [1-sqrt]")
@click.option("--end-lr", type=click.FloatRange(min=0), metavar="X", help="The last rate. [that of the run]")
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=60.0,
    metavar="SECONDS",
    help="How long to wait for an answer from a running run. [60]",
)
@click.option("--dry-run", is_flag=True, help="Show what would be done, and exit.")
@resume_options
def command(run: Path, **options: Any) -> int:
    """End the run in the directory RUN with a decay of its rate, from its current value to the end value.

    A run that is training in another terminal starts its cooldown after its current update. A run that was stopped or
    killed continues from its last checkpoint.

    \b
    Examples:
      mlxsched cooldown runs/laptop-001
      mlxsched cooldown runs/laptop-001 --steps 100 --shape linear
      mlxsched cooldown runs/laptop-001 --dry-run
    """
    return run_as_worker(options, lambda world: _cool_down(run, options, world))


def _cool_down(run: Path, options: dict[str, Any], world: World) -> None:
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.runs.lock import holder

    directory = RunDirectory.open(run)
    owner = holder(run)
    if owner is not None:
        _ask_and_tell(directory, _asked(owner, options), options)
        return
    from mlxsched.cli.extension_view import carry_out
    from mlxsched.training.extension import plan_cooldown

    session = session_of(directory, options, world)
    extension = plan_cooldown(session, directory, options["steps"], options["shape"], options["end_lr"])
    carry_out(session, directory, extension, options, world)


def _asked(owner: tuple[int, str], options: dict[str, Any]) -> CooldownAsked:
    import secrets

    from mlxsched.runs.requests import CooldownAsked

    pid, host = owner
    return CooldownAsked(
        secrets.token_hex(6), pid, host, options["steps"], options["shape"], options["end_lr"]
    )


def _ask_and_tell(run: RunDirectory, asked: CooldownAsked, options: dict[str, Any]) -> None:
    """Ask the process that trains ``run``, and say what it answered."""
    wait, as_json = options["wait"], options["as_json"]
    where = "this machine" if asked.host == socket.gethostname() else asked.host
    if options["dry_run"]:
        text = f"{run.path} is being trained by process {asked.pid} on {where}: it would receive a cooldown request."
        _tell(run, "dry_run", None, text, as_json)
        return
    from mlxsched.runs.requests import ask

    ask(run.path, asked)
    note(f"Asked process {asked.pid} on {where}; it answers after its current update.")
    answer = _answer(run, asked, wait)
    if answer is None:
        text = f"Queued: no answer in {wait:g} s. The cooldown starts after the current update."
        _tell(run, "queued", None, text, as_json)
        return
    steps = answer.updates - answer.at
    text = f"Cooling down from update {answer.at:,} in {steps:,} updates; the run ends after update {answer.updates:,}."
    _tell(run, "accepted", answer, text, as_json)


def _tell(run: RunDirectory, state: str, answer: Request | None, text: str, as_json: bool) -> None:
    if not as_json:
        say(text)
        return
    found: dict[str, object] = {"at": None, "updates": None, "schedule": None}
    if answer is not None:
        found = {"at": answer.at, "updates": answer.updates, "schedule": answer.revisions[-1]["schedule"]}
    print_json({"run": str(run.path), "kind": "cooldown", "state": state, **found, "message": text})


def _answer(run: RunDirectory, asked: CooldownAsked, wait: float) -> Request | None:
    """The request as it was accepted; None if there is no answer in ``wait`` seconds."""
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.runs.lock import holder
    from mlxsched.runs.requests import is_asked, withdraw

    end = time.monotonic() + wait
    while True:
        waiting, owner = is_asked(run.path, asked.id), holder(run.path)
        accepted = [one for one in RunDirectory.open(run.path).info.requests if one.id == asked.id]
        if accepted:
            return accepted[0]
        if not waiting:
            raise RunError(f"{run.path} refused: {_reason(run)}")
        if owner is None:
            withdraw(run.path)
            raise UsageError(
                f"{run.path} ended before it could answer. Ask again: mlxsched cooldown {run.path}."
            )
        if time.monotonic() >= end:
            return None
        time.sleep(POLL)


def _reason(run: RunDirectory) -> str:
    """Why the last request was refused."""
    messages = [
        str(record.get("message")) for record in run.read_metrics() if record.get("code") == "request_refused"
    ]
    return messages[-1] if messages else "another request has replaced this one."
