"""The chart of a run: the recorded learning rate, and the loss beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxsched.errors import UsageError
from mlxsched.render.chart import Axis, Chart, Series, Style
from mlxsched.runs.directory import METRICS_FILE
from mlxsched.runs.metrics import Record, read_metrics


@dataclass(frozen=True)
class Column:
    """One key of the records of one kind, over the updates that have it."""

    updates: list[int]
    values: list[float]

    def series(self, name: str, axis: Axis, style: Style = "line") -> Series:
        """The column as a curve of a chart."""
        return Series(name, self.updates, self.values, axis, style)


@dataclass(frozen=True)
class Recording:
    """What a run has written down so far."""

    name: str
    rate: Column
    loss: Column
    eval_loss: Column


def read_recording(directory: Path) -> Recording:
    """The learning rates and losses in ``directory/metrics.jsonl``, also of a run that is going on.

    Raises UsageError where no update has been recorded yet.
    """
    records = read_metrics(directory / METRICS_FILE)
    rate = column(records, "train", "lr")
    if not rate.updates:
        raise UsageError(f"{directory} has no recorded learning rate: no update was made. Train first.")
    loss, eval_loss = column(records, "train", "loss"), column(records, "eval", "loss")
    return Recording(directory.resolve().name, rate, loss, eval_loss)


def column(records: Sequence[Record], kind: str, key: str) -> Column:
    """The values of ``key`` in records of ``kind``; a record without it, or with null for a NaN, is passed over."""
    updates, values = [], []
    for record in records:
        value = record.get(key)
        if record["kind"] == kind and isinstance(value, int | float):
            updates.append(int(str(record["update"])))
            values.append(float(value))
    return Column(updates, values)


def run_chart(recordings: Sequence[Recording], *, log: bool = False, alone: bool = True) -> Chart:
    """Recorded rates on the left axis, losses on the right one: a line in training, dots on the validation set.

    Several runs, or one that is not ``alone`` in a picture, have their names with each curve.
    """
    alone = alone and len(recordings) == 1
    series: list[Series] = []
    for recording in recordings:
        prefix = "" if alone else f"{recording.name}: "
        series.append(recording.rate.series(f"{prefix}learning rate", "left"))
        series.append(recording.loss.series(f"{prefix}training loss", "right"))
        if recording.eval_loss.updates:
            series.append(recording.eval_loss.series(f"{prefix}validation loss", "right", "dots"))
    title = recordings[0].name if len(recordings) == 1 else f"{len(recordings)} runs"
    return Chart(title, "update", "learning rate", tuple(series), right_label="loss", log_y=log)
