"""``mlxsched resume``: continue a run that was stopped, exactly where it was."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, warn
from mlxsched.cli.workers import run_as_worker, share_config, worker_options
from mlxsched.errors import UsageError

if TYPE_CHECKING:
    from mlxsched.training.workers.world import World


@click.command()
@click.argument("run", type=Path)
@click.option("--force", is_flag=True, help="Resume even if data, model or versions have changed.")
@click.option("--data", help="Where the run's data is now, if it was moved.")
@click.option("--model", help="Where the run's model is now, if it was moved.")
@click.option(
    "--adapter-path", help="Also write the adapter to this directory; never read from the run's files."
)
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live display.")
@worker_options
def command(run: Path, **options: Any) -> int:
    """Resume the unfinished run in the directory RUN; the result is bit-identical to an uninterrupted run.

    \b
    Example:
      mlxsched resume runs/laptop-001
    """
    return run_as_worker(options, lambda world: _resume(run, options, world))


def _resume(run: Path, options: dict[str, Any], world: World) -> None:
    from mlxsched.cli.train import make_session, train_and_tell
    from mlxsched.config import LoadedConfig
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.runs.store import after_the_end
    from mlxsched.training.run import config_of, refuse_changes
    from mlxsched.training.workers.meeting import lead

    directory = RunDirectory.open(run)
    if directory.info.status == "finished":
        raise UsageError(f"{run} is finished: there is nothing to resume. {after_the_end(run)}")
    with directory.lock():
        pass  # refuse a run that is in use before anything slow is done
    config = config_of(
        directory,
        adapter_path=options["adapter_path"],
        trust_remote_code=options["trust_remote_code"],
        data=options["data"],
        model=options["model"],
    )
    origins = {key: str(value) for key, value in directory.info.origins.items()}
    session = make_session(share_config(world, LoadedConfig(config, origins)))
    for change in refuse_changes(directory, session, force=options["force"]):
        warn(
            f"changed since the run began: {change}. The result will differ from that of an uninterrupted run"
        )
    note(f"Resuming after update {directory.info.update:,} of {session.plan.updates:,}.")
    train_and_tell(
        lead(session, world), directory, plain=options["plain"], as_json=options["as_json"], resume=True
    )
