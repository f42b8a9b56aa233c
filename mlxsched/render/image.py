"""A chart as a PNG, SVG or PDF file, drawn with matplotlib (the extra ``report``).

The same chart always gives the same SVG: no date, no version, ids from a fixed salt.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlxsched.errors import UsageError
from mlxsched.render.chart import Axis, Chart, Mark, Style, require_points
from mlxsched.render.scale import ends_at_mark, horizontal, vertical, with_room
from mlxsched.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
# Distinguishable with common colour vision deficiencies (Okabe and Ito, 2008).
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "mlxsched",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "pdf.fonttype": 42,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
}
LINE: dict[str, Any] = {"linewidth": 1.6}
DOTS: dict[str, Any] = {"linestyle": "none", "marker": "o", "markersize": 5}
LOOKS: dict[Style, dict[str, Any]] = {
    "line": LINE,
    "dots": DOTS,
    "marked": {**LINE, "marker": "o", "markersize": 4},
}
FAINT: dict[Style, dict[str, Any]] = {
    "line": {"linewidth": 0.7, "alpha": 0.3},
    "dots": {**DOTS, "markersize": 3, "alpha": 0.35},
    "marked": {"linewidth": 0.7, "alpha": 0.3},
}
LEGEND_CHARACTERS = 96
"""Small characters that fit across a picture."""
NAME_ROWS, NAME_POINTS = 3, 10.0
"""Rows of names above a picture, and the height of one."""
NO_DATE: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


def save(chart: Chart, path: Path, *, size: tuple[float, float] = (8.0, 4.5), dpi: int = 150) -> None:
    """Write ``chart`` to ``path``; the suffix says which format. ``size`` is width and height in inches.

    Raises UsageError for another suffix, for a chart without points, when matplotlib is not installed, and when the file
    cannot be written.
    """
    kind = require_target(path)
    require_points(chart)
    with _matplotlib().rc_context(SETTINGS):
        figure = _figure(chart, size)
        try:
            figure.savefig(path, format=kind, dpi=dpi, metadata=NO_DATE[kind])
        except OSError as error:
            why = error.strerror or error
            raise UsageError(f"cannot write {path}: {why}. Choose another file with -o.") from error


def svg(chart: Chart, *, size: tuple[float, float] = (8.0, 4.5)) -> str:
    """``chart`` as the text of an SVG image; ``size`` is width and height in inches.

    Raises UsageError for a chart without points, and when matplotlib is not installed.
    """
    require_points(chart)
    file = io.StringIO()
    with _matplotlib().rc_context(SETTINGS):
        _figure(chart, size).savefig(file, format="svg", metadata=NO_DATE["svg"])
    return file.getvalue()


def require_target(path: Path) -> str:
    """The format of the picture that may be written to ``path``.

    Raises UsageError for another suffix, without the directory, and when matplotlib is not installed.
    """
    kind = format_of(path)
    if not path.parent.is_dir():
        raise UsageError(f"No such directory: {path.parent}. Create it first.")
    _matplotlib()
    return kind


def format_of(path: Path) -> str:
    """The format that ``path``'s suffix names.

    >>> format_of(Path("lr.SVG"))
    'svg'
    """
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise UsageError(f"cannot tell a picture's format from {path.name!r}. End it in .png, .svg or .pdf.")
    return kind


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        message = "pictures need matplotlib, which is not installed. Install it with: pip install 'mlxsched[report]'"
        raise UsageError(message) from error
    return matplotlib


def _figure(chart: Chart, size: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    room = 18.0 + NAME_POINTS * (len(_rows_of_names(chart)) - 1)
    axes.set_title(chart.title, loc="left", wrap=True, pad=room if chart.marks else None)
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)
    lines = _draw(axes, chart, "left", 0)
    _set_scales(axes, chart)
    if chart.on("right"):
        twin = axes.twinx()
        twin.set_ylabel(chart.right_label)
        twin.grid(False)
        twin.spines["right"].set_visible(True)
        lines += _draw(twin, chart, "right", len(lines))
    _mark(axes, chart)
    if len(lines) > 1:
        _legend(figure, lines)
    return figure


def _legend(figure: Figure, lines: list[Any]) -> None:
    """The names below the picture, in as many columns as fit."""
    longest = max(len(str(line.get_label())) for line in lines)
    columns = max(1, min(len(lines), LEGEND_CHARACTERS // (longest + 6)))
    figure.legend(handles=lines, loc="outside lower left", ncols=columns, frameon=False)


def _set_scales(axes: Axes, chart: Chart) -> None:
    """Set logarithmic axes and the number format of the terminal; a linear axis of rates starts at zero."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

    scales = ((axes.xaxis, horizontal(chart, 8)), (axes.yaxis, vertical(chart, "left", 6)))
    for axis, scale in scales:
        if scale.log:
            getattr(axes, f"set_{axis.axis_name}scale")("log")
            axis.set_minor_formatter(NullFormatter())
            axis.set_major_locator(FixedLocator(scale.ticks))
        axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    if not chart.log_y and all(value >= 0 for value in chart.heights("left")):
        axes.set_ylim(bottom=0.0)


def _draw(axes: Axes, chart: Chart, axis: Axis, first_color: int) -> list[Any]:
    """Draw the curves of one vertical axis; returns their handles for the legend."""
    lines: list[Any] = []
    for index, curve in enumerate(chart.on(axis), first_color):
        color = COLORS[index % len(COLORS)]
        if curve.behind is not None:
            axes.plot(curve.behind.x, curve.behind.y, color=color, zorder=1.5, **FAINT[curve.behind.style])
        lines += axes.plot(curve.x, curve.y, color=color, label=curve.name, **LOOKS[curve.style])
    return lines


def _rows_of_names(chart: Chart) -> list[list[Mark]]:
    """The marks by the row in which their names fit; the lowest one first. What needs a fourth row stays unnamed."""
    rows: list[list[Mark]] = []
    left, scale = list(chart.marks), horizontal(chart, 1)
    while left and len(rows) < NAME_ROWS:
        rows.append(with_room(left, scale, LEGEND_CHARACTERS))
        left = [mark for mark in left if mark not in rows[-1]]
    return rows


def _mark(axes: Axes, chart: Chart) -> None:
    """Draw a dotted line at the boundary of each phase, and the names above each other where they are close."""
    for mark in chart.marks:
        axes.axvline(mark.x, color="0.6", linewidth=0.8, linestyle=":")
    place, scale = axes.get_xaxis_transform(), horizontal(chart, 1)
    for row, marks in enumerate(_rows_of_names(chart)):
        for mark in marks:
            side = "right" if ends_at_mark(mark, scale, LEGEND_CHARACTERS) else "left"
            axes.annotate(
                mark.label,
                (mark.x, 1.01),
                xycoords=place,
                xytext=(0, row * NAME_POINTS),
                textcoords="offset points",
                color="0.4",
                fontsize=8,
                va="bottom",
                ha=side,
            )
