"""``mlxsched compare RUN RUN ...``: runs that are finished, side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlxsched.cli.output import console, note, picture, print_json, say, table, table_width, warn
from mlxsched.errors import UsageError
from mlxsched.text import clock, number

if TYPE_CHECKING:
    from mlxsched.experiments.finished import FinishedRun
    from mlxsched.render.chart import Chart

HEADER = ("run", "schedule", "peak", "seed", "updates", "best loss", "last loss", "exact", "training")
OPTIONAL = ("training", "exact", "seed", "last loss", "schedule")  # left out first on a narrow terminal
MOST_COLUMNS = 120  # a table that is wider lists the settings below, also in a file


def compare_runs(paths: Sequence[Path], *, as_json: bool, output: Path | None) -> None:
    """Show the results; if the runs are comparable, also which is best and whether the difference is significant."""
    from mlxsched.experiments import finished
    from mlxsched.experiments.ranking import points_of, rank, verdict
    from mlxsched.render.image import save

    if len(paths) < 2:
        raise UsageError("compare needs two runs or more. `mlxsched runs` lists them.")
    runs = [finished.read_finished(path) for path in paths]
    apart = finished.incomparable(runs)
    warnings = [*apart, *finished.doubts(runs)]
    for warning in warnings:
        warn(warning)
    keys = finished.differing(runs)
    ranked = [] if apart else rank(points_of(finished.measured(runs)))
    if output is not None:
        save(runs_chart(paths), output)
        note(f"Chart: {output}")
    if as_json:
        results = [finished.result(run, finished.variant_of(run, keys)) for run in runs]
        best = {one.variant: one.to_dict() for one in ranked}
        more = {"verdict": verdict(ranked), "warnings": warnings, "comparable": not apart}
        print_json({"results": results, "differing": keys, "best": best, **more})
        return
    listed = _show_runs(runs, keys, ranked=not apart)
    if listed:
        names: dict[str, list[str]] = {}
        for run in runs:
            names.setdefault(finished.variant_of(run, keys), []).append(run.summary.name)
        ranked = [
            replace(one, point=replace(one.point, variant=", ".join(names[one.variant]))) for one in ranked
        ]
    for line in verdict(ranked):
        say(f"{line}.")
    from mlxsched.render.terminal import draw, look_of_stdout

    picture(draw(runs_chart(paths), look_of_stdout(height=16)) + "\n")


def _show_runs(runs: Sequence[FinishedRun], keys: Sequence[str], *, ranked: bool) -> bool:
    """Print the runs with their differing settings, in columns or in a list below; returns whether it is a list."""
    from mlxsched.experiments.finished import ROWS, settings_of

    shown = list(runs)
    if ranked:
        shown.sort(key=lambda run: run.best if run.best is not None else float("inf"))
    values = [settings_of(run, keys) for run in shown]
    names = dict.fromkeys(name for one in values for name in one)
    differing = [name for name in names if name == ROWS or len({repr(one.get(name)) for one in values}) > 1]
    settings = [(name, *(_setting(one.get(name)) for one in values)) for name in differing]
    rows = [_row(run) for run in shown]
    wide = [(*row, *cells) for row, cells in zip(rows, _by_run(settings, len(rows)), strict=True)]
    in_list = table_width((*HEADER, *differing), wide) > min(console().width, MOST_COLUMNS)
    header, rows = (HEADER, rows) if in_list else ((*HEADER, *differing), wide)
    title = "Runs, by their best validation loss" if ranked else "Runs"
    table(rows, header=header, title=title, optional=OPTIONAL)
    say()
    if in_list:
        say(f"Settings that differ ({', '.join(run.summary.name for run in shown)}):")
        for name, *cells in settings:
            say(f"  {name}: {', '.join(cells)}")
        say()
    return in_list


def _by_run(settings: Sequence[Sequence[str]], runs: int) -> list[tuple[str, ...]]:
    return [tuple(cells[place + 1] for cells in settings) for place in range(runs)]


def _row(run: FinishedRun) -> tuple[str, ...]:
    return (
        run.summary.name,
        run.schedule,
        "-" if run.summary.peak is None else number(run.summary.peak),
        str(run.seed),
        str(run.summary.updates),
        _loss(run.best),
        _loss(run.last),
        _share(run.results.get("exact_match")),
        "-" if run.summary.seconds is None else clock(run.summary.seconds),
    )


def _setting(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value)
    return value if isinstance(value, str) and value else json.dumps(value)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _share(value: object) -> str:
    return f"{value:.1%}" if isinstance(value, float) else "-"


def runs_chart(paths: Sequence[Path]) -> Chart:
    """The validation losses of the runs, or their mean training losses where none were measured."""
    from mlxsched.render.chart import Chart, Series
    from mlxsched.render.run_chart import training_loss
    from mlxsched.runs.recording import read_recording

    recordings = [read_recording(path) for path in paths]
    with_validation = all(len(one.evaluations) for one in recordings)
    series = []
    for one in recordings:
        curve = one.evaluations.curve("loss")
        series.append(
            Series(one.name, curve.updates, curve.values, style="marked")
            if with_validation
            else training_loss(one, one.name, "left")
        )
    what = "validation loss" if with_validation else "training loss"
    return Chart(f"{what} of {len(paths)} runs", "update", what, tuple(series), log_y=True)
