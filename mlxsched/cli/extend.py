"""``mlxsched extend``: make a run longer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.resume import resume_options, session_of
from mlxsched.cli.workers import run_as_worker
from mlxsched.errors import UsageError

if TYPE_CHECKING:
    from mlxsched.training.extension import Amount, Wanted
    from mlxsched.training.workers.world import World

_LENGTHS = "--steps, --epochs or --max-time"


@click.command()
@click.argument("run", type=Path)
@click.option("--steps", metavar="N", help="Total updates of the run; +500 means 500 more.")
@click.option("--epochs", metavar="X", help="Total passes over the data; +1 means one more.")
@click.option("--max-time", metavar="TIME", help="How much longer to train, such as 20m.")
@click.option("--peak", type=float, metavar="X", help="From the end, warm up again to this rate.")
@click.option("--stretch", is_flag=True, help="Stretch the rest of the schedule of a stopped run.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and exit.")
@resume_options
def command(run: Path, **options: Any) -> int:
    """Make the run in the directory RUN longer, whether it has finished, was stopped or was killed.

    A run with a cooldown (wsd) continues from before the cooldown, and ends as if it had been planned for that length.
    With any other schedule, the rest of the schedule of a stopped run is stretched, and a finished run is warmed up
    again to half of its peak. Whatever is replaced, including the finished adapter, is kept in RUN/earlier.

    \b
    Examples:
      mlxsched extend runs/laptop-001 --epochs +1
      mlxsched extend runs/laptop-001 --steps +500 --dry-run
      mlxsched extend runs/laptop-001 --max-time 20m --peak 5e-5
    """
    return run_as_worker(options, lambda world: _extend(run, options, world))


def _extend(run: Path, options: dict[str, Any], world: World) -> None:
    from mlxsched.cli.extension_view import carry_out
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.extension import plan_extension

    wanted = _wanted(options)
    directory = RunDirectory.open(run)
    session = session_of(directory, options, world)
    carry_out(session, directory, plan_extension(session, directory, wanted), options, world)


def _wanted(options: dict[str, Any]) -> Wanted:
    from mlxsched.config.units import parse_duration
    from mlxsched.training.extension import Wanted

    steps, epochs, max_time = options["steps"], options["epochs"], options["max_time"]
    if sum(value is not None for value in (steps, epochs, max_time)) != 1:
        raise UsageError(f"Say how much longer to train: give one of {_LENGTHS}.")
    peak, stretch = options["peak"], options["stretch"]
    if peak is not None and (stretch or not 0 < peak < 1e3):
        raise UsageError(f"--peak must be a rate above 0, without --stretch; got {peak:g}.")
    try:
        seconds = None if max_time is None else parse_duration(max_time.removeprefix("+"))
    except ValueError as error:
        raise UsageError(f"--max-time {error}; got {max_time[:40]!r}.") from None
    return Wanted(_amount("--steps", steps), _amount("--epochs", epochs), seconds, peak, stretch)


def _amount(flag: str, text: str | None) -> Amount | None:
    """``+500`` is 500 more, ``500`` is the total."""
    from mlxsched.training.extension import Amount

    if text is None:
        return None
    try:
        value = float(int(text)) if flag == "--steps" else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise UsageError(
            f"{flag} must be a number above 0, such as 500 for the total or +500 for more; got {text[:40]!r}."
        )
    return Amount(value, text.strip().startswith("+"))
