"""The chart of a run: the recorded learning rate and the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlxsched.render.chart import Axis, Chart, Mark, Series, Style
from mlxsched.render.decimation import decimated, smoothed
from mlxsched.runs.recording import Curve, Recording

MOST_POINTS = 4000
"""Points of a curve: more than a picture has columns, few enough for a small SVG."""


def run_chart(recordings: Sequence[Recording], *, log: bool = False, alone: bool = True) -> Chart:
    """Recorded rates on the left axis, losses on the right one.

    The training loss is a running mean with the losses of single updates faintly behind it; the validation loss is dots, and
    the update of its lowest value is marked. With several runs, or when the chart shows schedules too (not `alone`), each curve
    carries the name of its run.

    Raises UsageError for a run that has recorded no update.
    """
    alone = alone and len(recordings) == 1
    series: list[Series] = []
    for recording in recordings:
        recording.require_updates()
        prefix = "" if alone else f"{recording.name}: "
        series.append(_series(recording.train.curve("lr"), f"{prefix}learning rate", "left"))
        series.append(training_loss(recording, f"{prefix}training loss"))
        if len(recording.evaluations):
            losses = recording.evaluations.curve("loss")
            series.append(_series(losses, f"{prefix}validation loss", "right", "dots"))
    title = recordings[0].name if len(recordings) == 1 else f"{len(recordings)} runs"
    marks = _best(recordings[0]) if alone else ()
    return Chart(title, "update", "learning rate", tuple(series), right_label="loss", log_y=log, marks=marks)


def training_loss(recording: Recording, name: str, axis: Axis = "right") -> Series:
    """The running mean of the training loss, with the losses of single updates behind it."""
    curve = recording.train.curve("loss")
    mean = Curve(curve.updates, smoothed(curve.values))
    return replace(_series(mean, name, axis), behind=_series(curve, "", axis))


def _best(recording: Recording) -> tuple[Mark, ...]:
    """A mark at the update with the lowest validation loss, if training came between."""
    curve = recording.evaluations.curve("loss")
    if len(curve.values) < 2:
        return ()
    best = min(range(len(curve.values)), key=curve.values.__getitem__)
    return (Mark(curve.updates[best], f"best {curve.values[best]:.4g}"),)


def _series(curve: Curve, name: str, axis: Axis, style: Style = "line") -> Series:
    x, y = decimated(curve.updates, curve.values, MOST_POINTS)
    return Series(name, x.tolist(), y.tolist(), axis, style)
