"""``mlxsched compare``: schedules or settings over a grid of peaks, lengths of a run, or runs that are finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlxsched.cli.options import GroupedCommand, run_options
from mlxsched.errors import UsageError

WHAT = (
    "say what to compare: --schedules linear,cosine,wsd trains each over a grid of peaks, --vary KEY=A,B does so with "
    "another setting, --trunk trains one run to several lengths, and RUN RUN ... compares finished runs"
)

DISPLAY = ("output", "as_json", "plain")
"""What every comparison uses."""


@click.command(cls=GroupedCommand)
@click.argument("runs", metavar="[RUN]...", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--schedules", metavar="LIST", help="Schedules to compare: names or specs, separated by commas."
)
@click.option(
    "--vary", multiple=True, metavar="KEY=LIST", help="Compare values of another key, such as rank=8,16."
)
@click.option(
    "--peaks", metavar="LIST", help="Peaks to try for each. [learning_rate times 0.25, 0.5, 1, 2 and 4]"
)
@click.option(
    "--seeds", default="3", show_default=True, metavar="N", help="Number of seeds, or a list of them."
)
@click.option("--halving", is_flag=True, help="Use short trials to choose the peaks that get full trials.")
@click.option("--trunk", is_flag=True, help="Train a constant-rate trunk, and a cooldown for each budget.")
@click.option(
    "--budgets",
    default="0.25,0.5,1.0",
    show_default=True,
    metavar="LIST",
    help="Lengths in updates, or shares of the planned length (written with a point).",
)
@click.option("--resume", type=Path, metavar="DIR", help="Continue the comparison in this directory.")
@click.option("-o", "--output", type=Path, metavar="FILE", help="Also write the chart: .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live display.")
@run_options
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Compare schedules, settings or lengths by training them, or runs that are finished.

    Each of --schedules, and each value of --vary, is trained at every peak with every seed, on the same model, rows, order
    and number of updates. It is judged by the validation loss at the end, at its own best peak. Differences are taken within
    a seed, with 95% confidence intervals.

    With --trunk, a run at a constant rate is trained once, and cooled down at each of --budgets. Each length ends as a WSD
    run of that length would, bit for bit, but the trunk is trained only once.

    \b
    Examples:
      mlxsched compare --schedules linear,cosine,constant --preset lora --iters 200
      mlxsched compare --vary rank=8,16 --peaks 3e-4,1e-3,3e-3 --seeds 2 -o ranks.png
      mlxsched compare --trunk --preset wsd --budgets 100,200,400
      mlxsched compare --resume runs/compare-001 --seeds 5
      mlxsched compare runs/laptop-001 runs/laptop-002
    """
    from mlxsched.render.image import format_of

    if flags["output"] is not None:
        format_of(flags["output"])  # a mistake is found before anything is trained
    _refuse_ignored(ctx)
    if flags["runs"]:
        from mlxsched.cli.compare_runs import compare_runs

        compare_runs(flags["runs"], as_json=flags["as_json"], output=flags["output"])
    elif _is_grid(flags):
        from mlxsched.cli.compare_grid import compare_over_grid

        compare_over_grid(ctx)
    elif flags["trunk"] or flags["resume"] is not None:
        from mlxsched.cli.compare_trunk import compare_lengths

        compare_lengths(ctx)
    else:
        raise UsageError(f"{WHAT[0].upper()}{WHAT[1:]}.")


def _refuse_ignored(ctx: click.Context) -> None:
    """Refuse flags without effect: a finished run or a resumed comparison already has its settings."""
    flags = ctx.params
    if flags["runs"]:
        used, why = {"runs"}, "finished runs are compared as they are"
    elif flags["resume"] is None:
        over_grid = bool(flags["schedules"] or flags["vary"])
        unused = {"peaks", "seeds", "halving"} if flags["trunk"] else {"budgets"} if over_grid else set()
        used, why = flags.keys() - unused, "this comparison does not use it"
    elif _is_grid(flags):
        used = {"resume", "peaks", "seeds", "trust_remote_code"}
        why = "a resumed comparison keeps its settings; --peaks and --seeds add to it"
    else:
        used = {"resume", "trunk", "trust_remote_code"}
        why = "a resumed comparison keeps its settings"
    given = click.core.ParameterSource.COMMANDLINE
    for option in ctx.command.params:
        name = option.name or ""
        if name not in {*used, *DISPLAY} and ctx.get_parameter_source(name) is given:
            raise UsageError(f"leave {option.opts[-1]} out: {why}.")


def _is_grid(flags: dict[str, Any]) -> bool:
    if flags["resume"] is not None:
        from mlxsched.experiments.grid_run import is_grid

        return is_grid(flags["resume"])
    wanted = bool(flags["schedules"] or flags["vary"])
    if wanted and flags["trunk"]:
        raise UsageError("--trunk compares lengths of one schedule: leave --schedules and --vary out.")
    return wanted
