"""``mlxsched resume``: go on with a run that was stopped, exactly where it was."""

from __future__ import annotations

from pathlib import Path

import click

from mlxsched.cli.output import note, warn
from mlxsched.errors import UsageError


@click.command()
@click.argument("run", type=Path)
@click.option("--force", is_flag=True, help="Go on although data, model or versions have changed.")
@click.option("--adapter-path", help="Write the adapter here too; never read from the run's own files.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Let the model's repository run its own tokenizer code."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--plain", is_flag=True, help="Lines instead of a live display.")
def command(
    run: Path, force: bool, adapter_path: str | None, trust_remote_code: bool, as_json: bool, plain: bool
) -> None:
    """Go on with the unfinished run in the directory RUN, bit for bit as if it had never stopped.

    \b
    Example:
      mlxsched resume runs/laptop-001
    """
    from mlxsched.cli.train import make_session, train_and_tell
    from mlxsched.config import LoadedConfig, RunConfig
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.run import config_of, refuse_changes

    directory = RunDirectory.open(run)
    if directory.info.status == "finished":
        raise UsageError(
            f"{run} is finished: there is nothing to go on with. `mlxsched eval {run}` measures it."
        )
    with directory.lock():
        pass  # a run that is in use is refused before anything long is done
    config: RunConfig = config_of(directory, adapter_path=adapter_path, trust_remote_code=trust_remote_code)
    origins = {key: str(value) for key, value in directory.info.origins.items()}
    session = make_session(LoadedConfig(config, origins))
    for change in refuse_changes(directory, session, force=force):
        warn(f"not as it was: {change}. The result will not be bit for bit that of one run")
    note(f"Going on after update {directory.info.update} of {session.plan.updates}.")
    train_and_tell(session, directory, plain=plain, as_json=as_json, resume=True)
