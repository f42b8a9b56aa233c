"""``mlxsched resume``: continue a run that was stopped, exactly where it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, warn
from mlxsched.cli.workers import meet, run_as_worker, share_config, worker_options
from mlxsched.errors import UsageError

if TYPE_CHECKING:
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.session import Session
    from mlxsched.training.workers.world import World

_OPTIONS = (
    click.option("--force", is_flag=True, help="Continue even if data, model or versions have changed."),
    click.option("--data", help="Where the run's data is now, if it was moved."),
    click.option("--model", help="Where the run's model is now, if it was moved."),
    click.option(
        "--adapter-path", help="Also write the adapter to this directory; never read from the run's files."
    ),
    click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code."),
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("--plain", is_flag=True, help="Print lines instead of a live display."),
    worker_options,
)


def resume_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of the commands that train a run that exists."""
    for decorate in reversed(_OPTIONS):
        function = decorate(function)
    return function


@click.command()
@click.argument("run", type=Path)
@click.option(
    "--micro-batch-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of padded tokens per forward pass from now on; results change by rounding only.",
)
@resume_options
def command(run: Path, **options: Any) -> int:
    """Resume the unfinished run in the directory RUN; the result is bit-identical to an uninterrupted run.

    \b
    Examples:
      mlxsched resume runs/laptop-001
      mlxsched resume runs/laptop-001 --micro-batch-tokens 512
    """
    return run_as_worker(options, lambda world: _resume(run, options, world))


def _resume(run: Path, options: dict[str, Any], world: World) -> None:
    from mlxsched.cli.train import train_and_tell
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.runs.store import after_the_end

    directory = RunDirectory.open(run)
    if directory.info.status == "finished":
        raise UsageError(f"{run} is finished: there is nothing to resume. {after_the_end(run)}")
    session = session_of(directory, options, world)
    updates = directory.info.updates or session.plan.updates
    note(f"Resuming after update {directory.info.update:,} of {updates:,}.")
    train_and_tell(
        meet(session, world), directory, plain=options["plain"], as_json=options["as_json"], resume=True
    )


def session_of(directory: RunDirectory, options: Mapping[str, Any], world: World) -> Session:
    """Load and plan the run in ``directory`` again, which nobody may be training; ``options`` are `resume_options`."""
    from mlxsched.cli.train import make_session
    from mlxsched.config import LoadedConfig
    from mlxsched.training.recorded import config_of, refuse_changes

    with directory.lock():
        pass  # refuse a run that is in use before anything slow is done
    given = {key: options[key] for key in ("adapter_path", "trust_remote_code", "data", "model")}
    config = config_of(directory, micro_batch_tokens=options.get("micro_batch_tokens"), **given)
    origins = {key: str(value) for key, value in directory.info.origins.items()}
    if options.get("micro_batch_tokens"):
        origins["micro_batch_tokens"] = "--micro-batch-tokens"
    session = make_session(share_config(world, LoadedConfig(config, origins)))
    for change in refuse_changes(directory, session, force=options["force"]):
        warn(
            f"changed since the run began: {change}. The result will differ from that of an uninterrupted run"
        )
    return session
