"""The chart of a run, read from records that the run's own writer wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.run_chart import MOST_POINTS, run_chart
from mlxsched.runs.events import Evaluated, Notice, UpdateMade
from mlxsched.runs.metrics import MetricsWriter
from mlxsched.runs.recording import read_recording


def record_run(directory: Path, updates: int = 4) -> Path:
    directory.mkdir()
    with MetricsWriter(directory / "metrics.jsonl") as writer:
        writer.record(Evaluated(0, 3.5))
        for update in range(1, updates + 1):
            writer.record(UpdateMade(update, 3.0 / update, 1e-4 * update))
        writer.record(Notice(updates, "saved", "x"))
        writer.record(UpdateMade(updates + 1, float("nan"), 5e-4))
        writer.record(Evaluated(updates + 1, 1.25))
    return directory


def test_rates_and_losses_are_those_recorded(tmp_path: Path) -> None:
    chart = run_chart([read_recording(record_run(tmp_path / "first"))])
    rate = chart.series[0]
    assert (chart.title, chart.right_label) == ("first", "loss")
    assert list(rate.x) == [1, 2, 3, 4, 5]
    assert list(rate.y) == [1e-4, 1e-4 * 2, 1e-4 * 3, 1e-4 * 4, 5e-4]
    assert [curve.name for curve in chart.on("left")] == ["learning rate"]
    training, validation = chart.on("right")
    assert (training.name, list(training.x)) == ("training loss", [1, 2, 3, 4])  # without the NaN
    assert training.behind is not None and list(training.behind.y) == [3.0, 1.5, 1.0, 0.75]
    assert min(training.behind.y) < min(training.y)  # the running mean follows behind
    assert [(mark.x, mark.label) for mark in chart.marks] == [(5, "best 1.25")]
    assert (validation.name, list(validation.x), list(validation.y)) == (
        "validation loss",
        [0, 5],
        [3.5, 1.25],
    )


def test_several_runs_carry_their_names(tmp_path: Path) -> None:
    runs = [read_recording(record_run(tmp_path / name)) for name in ("a", "b")]
    assert [curve.name for curve in run_chart(runs).on("left")] == ["a: learning rate", "b: learning rate"]


def test_a_run_without_an_update_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded learning rate"):
        run_chart([read_recording(tmp_path)])


def test_a_long_run_is_drawn_with_few_points(tmp_path: Path) -> None:
    chart = run_chart([read_recording(record_run(tmp_path / "long", updates=9000))])
    assert max(len(curve.x) for curve in chart.series) <= MOST_POINTS
