"""``mlxsched lr-find``: find the peak learning rate of a run from short trainings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlxsched.cli.options import GroupedCommand, load_given, repeated_flags, run_options
from mlxsched.cli.output import print_json, say
from mlxsched.errors import ChecksFailed, UsageError


@click.command(cls=GroupedCommand)
@run_options
@click.option(
    "--budget",
    metavar="SIZE",
    help="Budget of the search: 20% of the run, 3m, or 100 updates. [10%, but at least 100 updates, or the length of a shorter run]",
)
@click.option("--png", type=Path, metavar="FILE", help="Also write the chart as a PNG file.")
@click.option("--svg", type=Path, metavar="FILE", help="Also write the chart as an SVG file.")
@click.option("--out", type=Path, metavar="FILE", help="Also write the result as a JSON file.")
@click.option("--again", is_flag=True, help="Search even if there is a stored result for these settings.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live display.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Find the peak learning rate for the run that `mlxsched train` would make with the same flags.

    A range test finds where training diverges. Then short trainings from the start of the run, with its own schedule,
    are compared on held-out rows. The result is stored, and `mlxsched train --learning-rate auto` uses it.
    The first peaks are centered on a formula for rank, scale and model, or on --learning-rate.

    Exit code 3 means that the result is inconclusive; the message says how to resolve that.

    \b
    Examples:
      mlxsched lr-find --preset lora
      mlxsched lr-find --preset lora --model Qwen/Qwen3-0.6B --data my/folder --budget 5%
      mlxsched lr-find --optimizer sgd --iters 500 --png rates.png
    """
    from mlxsched.cli.lr_find_view import save_pictures, show_found
    from mlxsched.cli.rate_search import found_rate
    from mlxsched.cli.train import make_session
    from mlxsched.runs import atomic

    pictures = [path for path in (flags["png"], flags["svg"]) if path]
    _check_targets(pictures, flags["out"])
    session = make_session(load_given(ctx))
    found = found_rate(
        session, flags["budget"], plain=flags["plain"], again=flags["again"] or flags["learning_rate"]
    )
    save_pictures(found, pictures)
    if flags["out"]:
        atomic.write_json(flags["out"], found.to_dict())
    if flags["as_json"]:
        print_json(found.to_dict())
    else:
        show_found(found)
        if found.suggestion is not None:
            say(f"\nNext: {_next(ctx)}")
    if not found.conclusive:
        raise ChecksFailed(f"inconclusive: {found.reason}")


def _next(ctx: click.Context) -> str:
    """The command that trains at the suggestion."""
    return " ".join(
        ["mlxsched train", *repeated_flags(ctx, without=("learning_rate",)), "--learning-rate auto"]
    )


def _check_targets(pictures: list[Path], out: Path | None) -> None:
    """Refuse a file that could not be written, before the search."""
    from mlxsched.render.image import require_target

    for path in pictures:
        require_target(path)
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise UsageError(
            f"cannot write {out}: it is not a file in an existing directory. Choose another --out."
        )
