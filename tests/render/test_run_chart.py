"""The chart of a run, read from records that the run's own writer wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.run_chart import read_recording, run_chart
from mlxsched.runs.metrics import MetricsWriter


def record_run(directory: Path, updates: int = 4) -> Path:
    directory.mkdir()
    with MetricsWriter(directory / "metrics.jsonl") as writer:
        writer.write({"kind": "eval", "update": 0, "loss": 3.5})
        for update in range(1, updates + 1):
            writer.write({"kind": "train", "update": update, "loss": 3.0 / update, "lr": 1e-4 * update})
        writer.write({"kind": "event", "update": updates, "code": "saved", "message": "x", "lr": 9.0})
        writer.write({"kind": "train", "update": updates + 1, "loss": float("nan"), "lr": 5e-4})
        writer.write({"kind": "eval", "update": updates + 1, "loss": 1.25})
    return directory


def test_rates_and_losses_are_those_recorded(tmp_path: Path) -> None:
    recording = read_recording(record_run(tmp_path / "first"))
    assert recording.name == "first"
    assert recording.rate.updates == [1, 2, 3, 4, 5]
    assert recording.rate.values == [1e-4, 1e-4 * 2, 1e-4 * 3, 1e-4 * 4, 5e-4]
    assert (recording.eval_loss.updates, recording.eval_loss.values) == ([0, 5], [3.5, 1.25])


def test_a_loss_that_was_not_a_number_is_left_out(tmp_path: Path) -> None:
    assert read_recording(record_run(tmp_path / "first")).loss.updates == [1, 2, 3, 4]


def test_the_loss_is_beside_the_rate(tmp_path: Path) -> None:
    chart = run_chart([read_recording(record_run(tmp_path / "first"))])
    assert [curve.name for curve in chart.on("left")] == ["learning rate"]
    assert [curve.name for curve in chart.on("right")] == ["training loss", "validation loss"]
    assert chart.right_label == "loss"


def test_several_runs_are_told_apart_by_name(tmp_path: Path) -> None:
    runs = [read_recording(record_run(tmp_path / name)) for name in ("a", "b")]
    assert [curve.name for curve in run_chart(runs).on("left")] == ["a: learning rate", "b: learning rate"]


def test_a_run_without_an_update_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded learning rate"):
        read_recording(tmp_path)
