"""A tracker that fails is reported once, and the events go on to the others."""

from __future__ import annotations

import pytest

from mlxsched.runs.events import Notice, Tick
from mlxsched.runs.sinks import Sinks
from mlxsched.tracking import sinks
from mlxsched.tracking.state import read_ids


def test_a_tracker_whose_server_is_down_is_reported_once(run, config, events, monkeypatch):
    pytest.importorskip("mlflow")
    pytest.importorskip("tensorboardX")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nothing listens on the discard port
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    seen: list[object] = []
    fan = Sinks(seen.append, *sinks("mlflow,tensorboard", run, config))
    for event in events():
        fan(event)
    failures = [one for one in seen if isinstance(one, Notice) and one.code == "sink_failed"]
    assert len(failures) == 1 and failures[0].message.startswith("mlflow failed")
    assert len(seen) == len(events()) + 1
    assert list((run.path / "tensorboard").iterdir())


def test_nothing_is_opened_before_the_first_event_or_for_a_tick(run, config):
    pytest.importorskip("tensorboardX")
    (sink,) = sinks("tensorboard", run, config)
    sink(Tick(0, "loading", 1, 2))
    assert not (run.path / "tensorboard").exists() and sinks(None, run, config) == []


def test_a_real_run_is_tracked(run_short, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    run = run_short(tmp_path / "trained")
    client, run_id = mlflow.MlflowClient(), read_ids(run.path)["mlflow"]
    assert [one.step for one in client.get_metric_history(run_id, "train/loss")] == [2, 3]
    assert client.get_metric_history(run_id, "eval/loss")
    assert client.get_run(run_id).info.status == "FINISHED"
