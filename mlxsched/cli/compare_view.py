"""How a comparison is shown: the best of each variant, the loss at each peak, what is significant, and a picture."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxsched.cli.output import note, picture, print_json, say, table
from mlxsched.errors import RunError
from mlxsched.text import number

if TYPE_CHECKING:
    from mlxsched.experiments.ranking import Best, Point
    from mlxsched.render.chart import Chart


def show_comparison(
    points: Sequence[Point],
    tried: Mapping[str, Sequence[float]],
    details: Mapping[str, Any],
    *,
    as_json: bool,
    output: Path | None,
) -> None:
    """Print the ranking of ``points``, or the JSON with ``details``; write the picture if ``output`` is given.

    ``tried`` are the peaks of each variant, also those that --halving dropped.

    Raises:
        RunError: no variant has a peak without a diverged trial.
    """
    from mlxsched.experiments.ranking import rank, verdict
    from mlxsched.render.image import save

    ranked = rank(points, tried)
    chart = comparison_chart(points)
    if output is not None and ranked:
        save(chart, output)
        note(f"Chart: {output}")
    if as_json:
        best = {one.variant: one.to_dict() for one in ranked}
        print_json({**details, "best": best, "verdict": verdict(ranked)})
    if not ranked:
        raise RunError("a trial diverged at every peak, so there is nothing to rank. Lower --peaks.")
    if as_json:
        return
    _show_tables(points, ranked)
    for line in [*verdict(ranked), *_edges(ranked, details.get("path"))]:
        say(f"{line}.")
    _draw(chart)


def _show_tables(points: Sequence[Point], ranked: Sequence[Best]) -> None:
    rows = [
        (
            one.variant,
            number(one.point.peak),
            one.point.interval.text(),
            "" if one.difference is None else one.difference.text(signed=True),
            str(len(one.point.losses)),
        )
        for one in ranked
    ]
    table(rows, header=("", "best peak", "validation loss", "less the best", "seeds"), title="Best of each")
    peaks = sorted({point.peak for point in points})
    if len(peaks) < 2:
        return
    say()
    by_place = {(point.variant, point.peak): point for point in points}
    grid = [(one.variant, *(_mean(by_place.get((one.variant, peak))) for peak in peaks)) for one in ranked]
    table(grid, header=("peak", *map(number, peaks)), title="Validation loss at each peak")
    say()


def _mean(point: Point | None) -> str:
    if point is None:
        return ""
    return "diverged" if point.diverged or not point.losses else f"{point.interval.mean:.4f}"


def _edges(ranked: Sequence[Best], path: object) -> list[str]:
    """Best peaks at an end of the grid, with the command that tries further ones."""
    lines = []
    for one in ranked:
        if one.edge:
            further = one.point.peak * (2 if one.edge == "high" else 0.5)
            how = (
                f": mlxsched compare --resume {shlex.quote(str(path))} --peaks {number(further)}"
                if path
                else ""
            )
            end = "highest" if one.edge == "high" else "lowest"
            lines.append(f"{one.variant}: its best peak is the {end} one tried, so try further ones{how}")
    return lines


def _draw(chart: Chart) -> None:
    from mlxsched.render.terminal import draw, look_of_stdout

    picture(draw(chart, look_of_stdout(height=16)) + "\n")


def comparison_chart(points: Sequence[Point]) -> Chart:
    """The mean validation loss over the peak, one curve for each variant, with the losses of single seeds behind it."""
    from mlxsched.render.chart import Chart, Series

    series = []
    for variant in dict.fromkeys(point.variant for point in points):
        own = [point for point in points if point.variant == variant and point.losses]
        seeds = [(point.peak, loss) for point in own for loss in point.losses.values()]
        behind = Series("", [peak for peak, _ in seeds], [loss for _, loss in seeds], style="dots")
        means = [point.interval.mean for point in own]
        several = any(len(point.losses) > 1 for point in own)
        series.append(
            Series(
                variant,
                [point.peak for point in own],
                means,
                style="marked",
                behind=behind if several else None,
            )
        )
    return Chart(
        "validation loss at each peak", "peak", "validation loss", tuple(series), log_x=True, log_y=True
    )
