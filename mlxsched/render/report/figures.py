"""The figures of a report: learning rate, losses, gradient norm, throughput and memory over the same updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxsched.errors import UsageError
from mlxsched.render.decimation import Points, decimated, smoothed
from mlxsched.render.image import COLORS
from mlxsched.runs.recording import Recording

if TYPE_CHECKING:
    from bokeh.models import Column, ColumnDataSource
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
    from_zero: bool = False


_PANELS = (
    _Panel("grad_norm", "gradient norm", "0.000", log=True),
    _Panel("tokens_per_second", "tokens per second", "0,0", from_zero=True),
    _Panel("peak_memory_gb", "peak memory, GB", "0.000", from_zero=True),
)


def curves(recording: Recording, number: int) -> dict[str, Points]:
    """The points of every curve of run ``number`` in a report, by the name of its data source; empty ones are left out.

    A live page replaces the data of these sources, so zoom and hidden curves stay.
    """
    train, evaluations = recording.train, recording.evaluations.curve("loss")
    loss = train.curve("loss")
    found = {
        "loss": (loss.updates, loss.values),
        "smoothed": (loss.updates, smoothed(loss.values)),
        "validation": (evaluations.updates, evaluations.values),
        "lr": (train.curve("lr").updates, train.curve("lr").values),
    }
    for panel in _PANELS:
        curve = train.curve(panel.field)
        found[panel.field] = (curve.updates, curve.values)
    if evaluations.values:
        best = min(range(len(evaluations.values)), key=evaluations.values.__getitem__)
        found["best"] = ([evaluations.updates[best]], [evaluations.values[best]])
    return {f"{number}/{name}": decimated(x, y, MOST_POINTS) for name, (x, y) in found.items() if y}


def figures(recordings: Sequence[Recording], names: Sequence[str]) -> Column:
    """All figures one above the other, with linked zoom and hover.

    Raises:
        UsageError: bokeh is not installed, or a run has no update.
    """
    try:
        from bokeh.models import BasicTickFormatter, Column, ColumnDataSource, TabPanel, Tabs
    except ImportError:
        raise UsageError("A report needs bokeh. Install it: pip install 'mlxsched[report]'") from None
    for recording in recordings:
        recording.require_updates()
    sources = {
        name: ColumnDataSource({"x": x, "y": y}, name=name)
        for number, recording in enumerate(recordings)
        for name, (x, y) in curves(recording, number).items()
    }
    drawing = _Drawing(sources, names)
    rate = _figure("learning rate")
    # A fixed precision and an exponent at every size: bokeh's own choice begins at three digits, "5.000e-5".
    rate.yaxis.formatter = BasicTickFormatter(precision=1, power_limit_low=2)
    rate.yaxis.major_label_overrides = {0: "0"}
    drawing.lines(rate, "lr", "%.2e")
    losses = [
        TabPanel(child=drawing.losses(rate, log), title=title)
        for title, log in (("loss", False), ("log", True))
    ]
    others = [drawing.panel(panel, rate) for panel in _PANELS]
    found: list[UIElement] = [Tabs(tabs=losses, sizing_mode="stretch_width"), rate]
    found += [panel for panel in others if panel is not None]
    return Column(children=found, sizing_mode="stretch_width")


@dataclass(frozen=True)
class _Drawing:
    """The data sources of all runs, and the names of the runs."""

    sources: Mapping[str, ColumnDataSource]
    names: Sequence[str]

    def losses(self, rate: figure, log: bool) -> figure:
        """Training losses faint behind their running mean, validation losses as dots, the best one marked."""
        plot = _figure("loss", rate.x_range, log=log, height=420)
        for number, name in enumerate(self.names):
            suffix = f": {name}" if len(self.names) > 1 else ""
            color = _color(number)
            plot.line(
                "x",
                "y",
                source=self.sources[f"{number}/loss"],
                legend_label=f"training{suffix}",
                color=color,
                alpha=0.3,
            )
            label = f"training, smoothed{suffix}"
            source = self.sources[f"{number}/smoothed"]
            mean = plot.line("x", "y", source=source, color=color, line_width=2, legend_label=label)
            _hover(plot, mean, label, "0.0000")
            self._validation(plot, number, suffix)
        _place_legend(plot)
        return plot

    def _validation(self, plot: figure, number: int, suffix: str) -> None:
        source, best = self.sources.get(f"{number}/validation"), self.sources.get(f"{number}/best")
        if source is None:
            return
        label, color = f"validation{suffix}", _color(number + len(self.names))
        plot.line("x", "y", source=source, color=color, line_width=1, legend_label=label)
        dots = plot.scatter("x", "y", source=source, color=color, size=7, legend_label=label)
        _hover(plot, dots, label, "0.0000")
        ring: dict[str, Any] = {"size": 15, "fill_alpha": 0, "line_width": 2, "line_color": color}
        plot.scatter("x", "y", source=best, legend_label=f"best validation{suffix}", **ring)

    def panel(self, panel: _Panel, rate: figure) -> figure | None:
        """A figure of one more column; None where no run has recorded it."""
        from bokeh.models import DataRange1d

        if not any(f"{number}/{panel.field}" in self.sources for number in range(len(self.names))):
            return None
        plot = _figure(panel.title, rate.x_range, log=panel.log, height=200)
        if panel.from_zero:  # otherwise the axis of a constant would begin below zero
            plot.y_range = DataRange1d(start=0)
        self.lines(plot, panel.field, panel.shown)
        return plot

    def lines(self, plot: figure, field: str, shown: str) -> None:
        """A curve for each run that has recorded ``field``."""
        for number, name in enumerate(self.names):
            source = self.sources.get(f"{number}/{field}")
            if source is not None:
                _hover(
                    plot,
                    plot.line("x", "y", source=source, color=_color(number), line_width=1.5),
                    name,
                    shown,
                )


def _place_legend(plot: figure) -> None:
    """Below the figure, where it hides no curve; a click on an entry hides its curve."""
    legend = plot.legend[0]
    plot.add_layout(legend, "below")
    legend.click_policy, legend.ncols = "hide", 2
    legend.label_text_color, legend.background_fill_alpha, legend.border_line_alpha = INK, 0, 0


def _hover(plot: figure, glyph: Any, name: str, shown: str) -> None:
    from bokeh.models import HoverTool

    # The name of a run may come from a stranger: bokeh would read @ and $ in it as columns.
    label = "".join(char for char in name if char not in "@${}<>&")
    tips = [(label, f"@y{{{shown}}}"), ("update", "@x{0,0}")]
    form: Any = {"@y": "printf"} if shown.startswith("%") else {}  # bokeh's numeral format has no exponent
    plot.add_tools(HoverTool(renderers=[glyph], tooltips=tips, formatters=form, mode="vline"))


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
    plot.xaxis.axis_label = "update"
    plot.toolbar.logo = None
    plot.grid.grid_line_color, plot.grid.grid_line_alpha = INK, 0.2
    for axis in plot.axis:
        axis.axis_label_text_color = axis.major_label_text_color = INK
        axis.axis_line_color = axis.major_tick_line_color = axis.minor_tick_line_color = INK
    return plot


def _color(number: int) -> str:
    return COLORS[number % (len(COLORS) - 1)]  # the last one is black, which a dark page would hide
