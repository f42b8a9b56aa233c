"""``mlxsched runs``: the runs below a directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import note, print_json, table, warn
from mlxsched.text import clock, counted, megabytes, number, printable

if TYPE_CHECKING:
    from mlxsched.runs.summary import RunSummary

_SORT_KEYS = (
    "created",
    "name",
    "loss",
    "updates",
    "seconds",
    "size",
    "peak",
)  # of runs.summary, imported late
_OPTIONAL = ("size", "created", "training", "peak", "schedule", "loss")  # left out first on a narrow terminal
_STATUSES = ("running", "finished", "stopped", "failed", "interrupted", "unreadable")


@click.command()
@click.argument("root", type=click.Path(path_type=Path), default=Path("runs"))
@click.option("--sort", type=click.Choice(_SORT_KEYS), default="created", help="Order of the list.")
@click.option("--reverse", is_flag=True, help="Largest or latest first.")
@click.option("--status", type=click.Choice(_STATUSES), multiple=True, help="Only runs with this status.")
@click.option("--schedule", help="Only runs whose schedule has this name.")
@click.option("--remove", is_flag=True, help="Remove the listed runs, after asking.")
@click.option("--yes", is_flag=True, help="Remove without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    root: Path,
    sort: str,
    status: tuple[str, ...],
    schedule: str | None,
    as_json: bool,
    **flags: bool,
) -> None:
    """List the runs in the directory ROOT and below, "runs" by default.

    "loss" is the best validation loss, or the mean of the last 20 training losses of a run without validation rows.
    "training" is the time for updates and evaluations. It excludes loading and the measurement of the test rows.
    A run is "interrupted" when it was killed: `mlxsched resume` continues it. --remove deletes the files that mlxsched
    wrote into a run and keeps all others.

    \b
    Examples:
      mlxsched runs
      mlxsched runs --sort loss
      mlxsched runs experiments --status finished --json
      mlxsched runs --status failed --remove
      mlxsched runs runs/debug-001 --remove
    """
    from mlxsched.errors import UsageError
    from mlxsched.runs.store import runs_below
    from mlxsched.runs.summary import sort_runs, summarize

    if not root.is_dir() and root != Path("runs"):
        raise UsageError(f"There is no directory {root}. Give a directory with runs, or a run.")
    found = sort_runs([summarize(run) for run in runs_below(root)], sort, reverse=flags["reverse"])
    found = [run for run in found if not status or run.status in status]
    found = [run for run in found if schedule is None or run.schedule == schedule]
    if as_json:
        print_json([run.to_dict() for run in found])
    else:
        _show(found, root, sort)
    if flags["remove"]:
        _remove(found, yes=flags["yes"])


def _show(runs: list[RunSummary], root: Path, sort: str) -> None:
    if not runs:
        note(f"No runs in {root}. Start one: mlxsched train --preset laptop")
        return
    header = ("run", "status", "updates", "loss", "schedule", "peak", "training", "size", "created")
    by = "training" if sort == "seconds" else sort
    optional = [name for name in _OPTIONAL if name != by or sort == "created"]  # the default needs no proof
    table([_row(run) for run in runs], header=header, optional=optional)
    for run in runs:
        if run.problem:
            warn(printable(run.problem, 300))


def _row(run: RunSummary) -> tuple[str, ...]:
    updates = f"{run.updates:,}" if run.planned is None else f"{run.updates:,} / {run.planned:,}"
    return (
        str(run.path),
        run.status,
        updates,
        "-" if run.loss is None else f"{run.loss:.4f}",
        run.schedule or "-",
        "-" if run.peak is None else number(run.peak),
        "-" if run.seconds is None else clock(run.seconds),
        megabytes(run.size),
        run.created.replace("T", " ")[:16],
    )


def _remove(runs: list[RunSummary], *, yes: bool) -> None:
    """Remove ``runs`` after asking, naming the files that stay."""
    from mlxsched.runs.removal import remove_run

    size = megabytes(sum(run.size for run in runs))
    if not runs or not (yes or click.confirm(f"Remove {counted(len(runs), 'run')} ({size})?", err=True)):
        note("Nothing was removed.")
        return
    for run in runs:
        kept = remove_run(run.path)
        note(f"Removed {run.path}.")
        for path in kept:
            note(f"  kept {path}, which mlxsched did not write")
