"""The figures of a report: learning rate, losses, gradient norm, throughput and memory over the same updates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxsched.errors import UsageError
from mlxsched.render.decimation import decimated, smoothed
from mlxsched.render.image import COLORS
from mlxsched.runs.recording import Recording

if TYPE_CHECKING:
    from bokeh.models import Column
    from bokeh.models.ui import UIElement
    from bokeh.plotting import figure

MOST_POINTS = 4000
"""Points of a curve: more than a screen has columns, few enough for a small file."""
INK = "#787878"
"""Axes and labels: readable on white and on black, since bokeh does not follow the page's colours."""


@dataclass(frozen=True)
class _Panel:
    """One figure below the losses: a column of the records, and what it is called."""

    field: str
    title: str
    shown: str  # bokeh's format of a value
    log: bool = False


_PANELS = (
    _Panel("grad_norm", "gradient norm", "0.000", log=True),
    _Panel("tokens_per_second", "tokens per second", "0,0"),
    _Panel("peak_memory_gb", "peak memory, GB", "0.000"),
)


def figures(recordings: Sequence[Recording], names: Sequence[str]) -> Column:
    """All figures one above the other, with linked zoom and hover.

    Raises:
        UsageError: bokeh is not installed, or a run has no update.
    """
    try:
        from bokeh.models import Column, TabPanel, Tabs
    except ImportError:
        raise UsageError("A report needs bokeh. Install it: pip install 'mlxsched[report]'") from None
    for recording in recordings:
        recording.require_updates()
    runs = list(zip(recordings, names, strict=True))
    rate = _figure("learning rate")
    for number, (recording, name) in enumerate(runs):
        _line(rate, recording, "lr", name, _color(number), "0.00e+0")
    losses = [
        TabPanel(child=_losses(runs, rate, log), title=title)
        for title, log in (("loss", False), ("log", True))
    ]
    rate.xaxis.axis_label = "update"
    others = [_panel(panel, runs, rate) for panel in _PANELS]
    found: list[UIElement] = [Tabs(tabs=losses, sizing_mode="stretch_width"), rate]
    found += [panel for panel in others if panel is not None]
    return Column(children=found, sizing_mode="stretch_width")


def _losses(runs: list[tuple[Recording, str]], rate: figure, log: bool) -> figure:
    """Training losses faint behind their running mean, validation losses as dots, the best one marked."""
    plot = _figure("loss", rate.x_range, log=log, height=420)
    for number, (recording, name) in enumerate(runs):
        color, suffix = _color(number), f": {name}" if len(runs) > 1 else ""
        curve = recording.train.curve("loss")
        x, y = decimated(curve.updates, curve.values, MOST_POINTS)
        plot.line(x, y, color=color, alpha=0.3, legend_label=f"training{suffix}")
        x, y = decimated(curve.updates, smoothed(curve.values), MOST_POINTS)
        mean = plot.line(x, y, color=color, line_width=2, legend_label=f"training, smoothed{suffix}")
        _hover(plot, mean, f"training, smoothed{suffix}", "0.0000")
        _validation(plot, recording, suffix, _color(number + len(runs)))
    _place_legend(plot)
    return plot


def _place_legend(plot: figure) -> None:
    """Below the figure, where it hides no curve; a click on an entry hides its curve."""
    legend = plot.legend[0]
    plot.add_layout(legend, "below")
    legend.click_policy, legend.ncols = "hide", 2
    legend.label_text_color, legend.background_fill_alpha, legend.border_line_alpha = INK, 0, 0


def _validation(plot: figure, recording: Recording, suffix: str, color: str) -> None:
    curve = recording.evaluations.curve("loss")
    if not curve.values:
        return
    x, y = decimated(curve.updates, curve.values, MOST_POINTS)
    label = f"validation{suffix}"
    plot.line(x, y, color=color, line_width=1, legend_label=label)
    _hover(plot, plot.scatter(x, y, color=color, size=7, legend_label=label), label, "0.0000")
    best = min(range(len(curve.values)), key=curve.values.__getitem__)
    plot.scatter(
        [curve.updates[best]],
        [curve.values[best]],
        marker="circle",
        size=15,
        fill_alpha=0,
        line_width=2,
        line_color=color,
        legend_label=f"best: {curve.values[best]:.4g} after {curve.updates[best]} updates{suffix}",
    )


def _panel(panel: _Panel, runs: list[tuple[Recording, str]], rate: figure) -> figure | None:
    """A figure of one more column; None where no run has recorded it."""
    if not any(recording.train.curve(panel.field).values for recording, _ in runs):
        return None
    plot = _figure(panel.title, rate.x_range, log=panel.log, height=180)
    for number, (recording, name) in enumerate(runs):
        _line(plot, recording, panel.field, name, _color(number), panel.shown)
    return plot


def _line(plot: figure, recording: Recording, field: str, name: str, color: str, shown: str) -> None:
    curve = recording.train.curve(field)
    x, y = decimated(curve.updates, curve.values, MOST_POINTS)
    _hover(plot, plot.line(x, y, color=color, line_width=1.5), name, shown)


def _hover(plot: figure, glyph: Any, name: str, shown: str) -> None:
    from bokeh.models import HoverTool

    # The name of a run may come from a stranger: bokeh would read @ and $ in it as columns.
    label = "".join(char for char in name if char not in "@${}<>&")
    tips = [(label, f"@y{{{shown}}}"), ("update", "@x{0,0}")]
    plot.add_tools(HoverTool(renderers=[glyph], tooltips=tips, mode="vline"))


def _figure(title: str, x_range: Any = None, *, log: bool = False, height: int = 220) -> figure:
    from bokeh.models.annotations import Title
    from bokeh.plotting import figure

    plot = figure(
        height=height,
        sizing_mode="stretch_width",
        title=Title(text=title, text_color=INK),
        y_axis_type="log" if log else "linear",
        tools="xpan,xwheel_zoom,box_zoom,reset",
        background_fill_alpha=0,
        border_fill_alpha=0,
        outline_line_color=INK,
        min_border_left=80,  # one left edge for all, whatever their labels
        **({} if x_range is None else {"x_range": x_range}),  # shared, so that zooming one figure zooms all
    )
    plot.toolbar.logo = None
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = INK, 0.2
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = INK
    return plot


def _color(number: int) -> str:
    return COLORS[number % (len(COLORS) - 1)]  # the last one is black, which a dark page would hide
