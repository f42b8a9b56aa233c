"""The chart of a run: the recorded learning rate and the losses."""

from __future__ import annotations

from collections.abc import Sequence

from mlxsched.render.chart import Axis, Chart, Series, Style
from mlxsched.runs.recording import Curve, Recording


def run_chart(recordings: Sequence[Recording], *, log: bool = False, alone: bool = True) -> Chart:
    """Recorded rates on the left axis, losses on the right one: a line for training, dots for validation.

    With several runs, or when the chart shows schedules too (not `alone`), each curve carries the name of its run.

    Raises UsageError for a run that has recorded no update.
    """
    alone = alone and len(recordings) == 1
    series: list[Series] = []
    for recording in recordings:
        recording.require_updates()
        prefix = "" if alone else f"{recording.name}: "
        series.append(_series(recording.train.curve("lr"), f"{prefix}learning rate", "left"))
        series.append(_series(recording.train.curve("loss"), f"{prefix}training loss", "right"))
        if len(recording.evaluations):
            losses = recording.evaluations.curve("loss")
            series.append(_series(losses, f"{prefix}validation loss", "right", "dots"))
    title = recordings[0].name if len(recordings) == 1 else f"{len(recordings)} runs"
    return Chart(title, "update", "learning rate", tuple(series), right_label="loss", log_y=log)


def _series(curve: Curve, name: str, axis: Axis, style: Style = "line") -> Series:
    return Series(name, curve.updates, curve.values, axis, style)
