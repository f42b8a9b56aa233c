"""``mlxsched plot``: schedules and recorded runs, in the terminal, as an image file or as numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli import output

if TYPE_CHECKING:
    from mlxsched.render.chart import Chart
    from mlxsched.render.sources import Planned, Recorded

HELP = """Draw learning-rate schedules and recorded runs, several in one chart.

    Each SCHEDULE is looked up in this order:

    \b
      a spec            a name and arguments: "wsd(peak=2e-4, steps=1000)"
      a schedule's name cosine, wsd, ...: `mlxsched schedules` lists them; takes
                        --peak, --steps, --warmup and --end
      a preset          laptop, ...: as `mlxsched train` would use it
      a directory       a run: its recorded learning rate and loss
      a YAML file       a schedule in dictionary form, an mlx-lm config (its
                        lr_schedule, with mlx-lm's exact values), or one of ours

    Write a file with the name of a schedule as a path, ./cosine.

    \b
    Examples:
      mlxsched plot cosine --peak 2e-4 --steps 1000 --warmup 100
      mlxsched plot linear cosine wsd --log -o compare.png
      mlxsched plot "warmup_cosine(peak=2e-4, steps=1000, warmup=100)" --json
      mlxsched plot lora_config.yaml runs/laptop-001
    """
JSON_POINTS = 10_000
"""``--json`` has every update of a schedule up to this length, and a sample of a longer one."""
MOST_POINTS = 1_000_000
MOST_CELLS = 1000
"""Columns or lines of a chart: more fill the memory, and no terminal shows them."""


def _updates_or_ratio(_: click.Context, __: click.Parameter, value: str | None) -> int | float | None:
    """``100`` is updates, ``0.1`` a ratio."""
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is neither a number of updates nor a ratio below 1.") from None
    return int(number) if number.is_integer() else number


@click.command(help=HELP)
@click.argument("schedules", nargs=-1, required=True, metavar="SCHEDULE...")
@click.option("--peak", metavar="RATE", type=float, help="Highest rate of a schedule given by name. [2e-4]")
@click.option(
    "--steps",
    metavar="N",
    type=click.IntRange(min=1),
    help="Updates to draw, and the length of a named schedule. [1000]",
)
@click.option("--warmup", callback=_updates_or_ratio, metavar="N", help="Updates, or a ratio below 1. [0.1]")
@click.option("--end", metavar="RATE", type=float, help="Last rate of a schedule given by name. [0]")
@click.option("--log", is_flag=True, help="Logarithmic axis for the rate.")
@click.option(
    "--points",
    metavar="N",
    type=click.IntRange(2, MOST_POINTS),
    help="Sample about this many updates, evenly spaced.",
)
@click.option(
    "-o", "--output", "file", type=click.Path(path_type=Path), help="Write a .png, .svg or .pdf file instead."
)
@click.option(
    "--width", metavar="N", type=click.IntRange(30, MOST_CELLS), help="Columns of the chart in the terminal."
)
@click.option(
    "--height", metavar="N", type=click.IntRange(8, MOST_CELLS), help="Lines of the chart in the terminal."
)
@click.option("--json", "as_json", is_flag=True, help="Print name, steps and values as JSON.")
def command(schedules: tuple[str, ...], steps: int | None, points: int | None, **options: Any) -> None:
    """Draw schedules and runs in the terminal and to a file, or print their values; the help is in `HELP`."""
    from mlxsched.render.sources import Planned, Shape, find_source

    shape = Shape(options["peak"], steps, options["warmup"], options["end"])
    sources = [find_source(text, shape) for text in schedules]
    for source in sources:
        if isinstance(source, Planned) and source.note:
            output.note(f"{source.name}: {source.note}")
    if options["as_json"]:
        records = [_record(source, points) for source in sources]
        output.print_json(records[0] if len(records) == 1 else records)
    if options["file"] or not options["as_json"]:
        chart = _chart(sources, points, options["log"])
        _show(chart, options["file"], options["width"], options["height"])


def _chart(sources: Sequence[Planned | Recorded], points: int | None, log: bool) -> Chart:
    """One chart of all sources, schedules before runs."""
    from mlxsched.render.chart import overlay
    from mlxsched.render.curves import POINTS, schedule_chart
    from mlxsched.render.run_chart import run_chart
    from mlxsched.render.sources import Planned, Recorded
    from mlxsched.runs.recording import read_recording

    charts = []
    planned = [source for source in sources if isinstance(source, Planned)]
    if planned:
        named, steps = [(one.name, one.schedule) for one in planned], max(one.steps for one in planned)
        charts.append(schedule_chart(named, steps=steps, points=points - 1 if points else POINTS, log=log))
    recorded = [read_recording(source.directory) for source in sources if isinstance(source, Recorded)]
    if recorded:
        charts.append(run_chart(recorded, log=log, alone=not planned))
    return overlay(*charts) if len(charts) == 2 else charts[0]


def _show(chart: Chart, file: Path | None, width: int | None, height: int | None) -> None:
    from mlxsched.render.terminal import draw, look_of_stdout

    if file is None:
        output.picture(draw(chart, look_of_stdout(width, height)))
        return
    from mlxsched.render.image import save

    save(chart, file)
    output.note(f"Wrote {file}")


def _record(source: Planned | Recorded, points: int | None) -> dict[str, Any]:
    """The numbers of one source: ``name``, ``steps``, ``values``, and the schedule or the losses of a run."""
    from mlxsched.render.sources import Recorded

    if isinstance(source, Recorded):
        return _run_record(source.directory)
    gaps = points - 1 if points else (source.steps if source.steps <= JSON_POINTS else 1000)
    at, values = source.schedule.sample(gaps, source.steps)
    name = source.name.partition("(")[0].strip()
    return {"name": name, "schedule": source.schedule.to_dict(), "steps": at, "values": values}


def _run_record(directory: Path) -> dict[str, Any]:
    from mlxsched.runs.recording import read_recording

    recording = read_recording(directory)
    recording.require_updates()
    rates = recording.train.curve("lr")
    return {
        "name": recording.name,
        "steps": rates.updates,
        "values": rates.values,
        "loss": dataclasses.asdict(recording.train.curve("loss")),
        "eval_loss": dataclasses.asdict(recording.evaluations.curve("loss")),
    }
