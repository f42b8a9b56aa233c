"""``mlxsched schedules``: list the named schedules, or show one in detail."""

from __future__ import annotations

import itertools
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, picture, print_json, say

if TYPE_CHECKING:
    from mlxsched.render.terminal import Look
    from mlxsched.schedules.registry import ScheduleInfo

SPARK_WIDTH = 16


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List all schedules with their curves, or show one in detail.

    \b
    Examples:
      mlxsched schedules
      mlxsched schedules show wsd
      mlxsched schedules --json
    """
    if ctx.invoked_subcommand:
        return
    from mlxsched.schedules.registry import alias_names, entry, names

    entries = [entry(name) for name in [*names(), *alias_names()]]
    if as_json:
        print_json([_record(known) for known in entries])
        return
    for _, members in itertools.groupby(entries, key=lambda known: known.group):
        _print_group(list(members))
    note("`mlxsched schedules show NAME` shows one in detail; `mlxsched plot NAME` draws it.")


@command.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, as_json: bool) -> None:
    """Show a schedule: its formula, arguments and curve, when to use it, and its source.

    \b
    Example:
      mlxsched schedules show one_cycle
    """
    from mlxsched.render.describe import find_entry

    known = find_entry(name)
    if as_json:
        print_json(_record(known))
    else:
        _print_entry(known)


def _record(known: ScheduleInfo) -> dict[str, Any]:
    """A schedule as plain data."""
    from dataclasses import asdict

    from mlxsched.render.describe import arguments, example_spec, other_names

    return {
        "name": known.name,
        "group": known.group,
        "summary": known.summary,
        "formula": known.formula,
        "arguments": [asdict(argument) for argument in arguments(known)],
        "when": known.when,
        "source": known.source,
        "spec": example_spec(known),
        "aliases": other_names(known.name),
    }


def _print_group(members: list[ScheduleInfo]) -> None:
    """A heading, and a line for each schedule: name, curve, summary; cut to the width of the terminal."""
    from mlxsched.render.describe import heading
    from mlxsched.render.terminal import look_of_stdout

    look, wide = look_of_stdout(), max(len(known.name) for known in members)
    room = look.width - wide - SPARK_WIDTH - 6 if sys.stdout.isatty() else 1000
    say(heading(members[0]))
    for known in members:
        summary = textwrap.shorten(known.summary, room, placeholder=" ...")
        say(f"  {known.name:{wide}}  {_curve(known, look):{SPARK_WIDTH}}  {summary}")
    say()


def _curve(known: ScheduleInfo, look: Look) -> str:
    from mlxsched.render.describe import example
    from mlxsched.render.sparkline import sparkline

    shown = example(known)
    return sparkline(shown.values(SPARK_WIDTH), SPARK_WIDTH, ascii_only=look.ascii_only) if shown else ""


def _print_entry(known: ScheduleInfo) -> None:
    """Print everything about one schedule; empty fields are left out."""
    from mlxsched.render.curves import small_picture
    from mlxsched.render.describe import example, example_spec, other_names, stands_for
    from mlxsched.render.terminal import look_of_stdout

    look = look_of_stdout(height=12)
    say(f"{known.name}: {known.summary}\n")
    _field("Formula", known.formula, look)
    _print_arguments(known, look)
    _field("Example", example_spec(known), look)
    if shown := example(known):
        picture(f"\n{small_picture(shown.schedule, steps=shown.steps, look=look)}\n")
    _field("When", known.when, look)
    _field("Source", known.source, look)
    _field("Aliases", ", ".join(other_names(known.name)), look)
    meant = stands_for(known.name)
    _field("In a run", f"`--schedule {known.name}` means {meant}." if meant != known.name else "", look)


def _field(label: str, text: str, look: Look) -> None:
    """Print a label and its text, wrapped to the width; nothing when there is no text."""
    if text:
        lines = textwrap.wrap(text, max(30, look.width - 11))
        say(f"{label:<10} " + f"\n{'':11}".join(lines))


def _print_arguments(known: ScheduleInfo, look: Look) -> None:
    from mlxsched.render.describe import arguments

    for index, one in enumerate(arguments(known)):
        written = f"{one.name}={one.default}" if one.default else one.name
        _field("" if index else "Arguments", f"{written}: {one.text}" if one.text else written, look)
