"""Every tracker with its real library, offline: what was sent is read back from what the library stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlxsched.tracking import TRACKERS, sinks
from mlxsched.tracking.state import read_ids

LOSSES = {2: 2.75, 4: 1.75, 5: 1.0}  # means of updates 0 and 1, 2 and 3, and the rest


def send(name, run, config, events):
    (sink,) = sinks(name, run, config)
    for event in events:
        sink(event)
    return sink


def test_tensorboard(run, config, events):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    send("tensorboard", run, config, events())
    found: dict[tuple[str, int], float] = {}
    (file,) = (run.path / "tensorboard").iterdir()
    data, at = file.read_bytes(), 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + length])
        for value in event.summary.value:
            found[value.tag, event.step] = value.simple_value
        at += length + 16
    assert {step: found["train/loss", step] for step in LOSSES} == LOSSES
    assert found["eval/loss", 5] == 1.25 and ("eval/perplexity", 5) not in found
    assert found["train/learning_rate", 4] == pytest.approx(3e-4)
    assert any(tag.startswith("alerts/spike") for tag, _ in found)


def leveldb_records(data: bytes):
    """The records of a log in LevelDB's format, after W&B's header of 7 bytes."""
    at, record = 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:  # too short for a header
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield record
            record = b""


def test_wandb(run, config, events):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    send("wandb", run, config, events())
    assert wandb.run is None
    wandb.teardown()  # the service writes its buffer, as at the end of a process
    (file,) = (run.path / "wandb").glob("offline-run-*/*.wandb")
    rows, alerts = [], []
    for data in leveldb_records(file.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.HasField("history"):
            rows.append({i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item})
        if record.HasField("alert"):
            alerts.append(record.alert.title)
    losses = {row["_step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert losses == LOSSES and alerts == ["spike"]
    assert any(row.get("eval/loss") == 1.25 for row in rows)
    assert read_ids(run.path)["wandb"] in file.name


def test_trackio(run, config, events):
    trackio = pytest.importorskip("trackio")
    send("trackio", run, config, events())
    name = read_ids(run.path)["trackio"]
    rows = trackio.sqlite_storage.SQLiteStorage.get_logs("tests", name)
    assert {row["step"]: row["train/loss"] for row in rows if "train/loss" in row} == LOSSES
    alerts = trackio.sqlite_storage.SQLiteStorage.get_alerts("tests")
    assert [one["title"] for one in alerts] == ["spike"]


def test_swanlab(run, config, events):
    pytest.importorskip("swanlab")
    send("swanlab", run, config, events())
    (file,) = (run.path / "swanlog").glob("run-*/*.swanlab")
    assert read_ids(run.path)["swanlab"] in file.name
    data = file.read_bytes()
    assert b"train/loss" in data and b"eval/loss" in data and b"alerts/spike" in data


def test_mlflow(run, config, events, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    send("mlflow", run, config, events())
    client, run_id = mlflow.MlflowClient(), read_ids(run.path)["mlflow"]
    history = client.get_metric_history(run_id, "train/loss")
    assert {one.step: one.value for one in history} == LOSSES
    stored = client.get_run(run_id)
    assert stored.info.status == "FINISHED" and "the loss rose" in stored.data.tags["alert.spike"]
    assert stored.data.params["batch_size"] == str(config.batch_size)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_resume_continues_the_same_run(name, run, config, events):
    pytest.importorskip(TRACKERS[name])
    stopped = events(0, 3, "stopped")
    send(name, run, config, stopped)
    first = read_ids(run.path)[name]
    send(name, run, config, events(3, 5))
    assert read_ids(run.path) == {name: first}
    if name == "mlflow":
        import mlflow

        history = mlflow.MlflowClient().get_metric_history(first, "train/loss")
        assert [one.step for one in history] == [2, 3, 4, 5]
    if name == "trackio":
        import trackio

        assert len(trackio.Api().runs("tests")) == 1


@pytest.mark.parametrize("name", TRACKERS)
def test_stdout_stays_free(name, run, config, events, capfd):
    pytest.importorskip(TRACKERS[name])
    send(name, run, config, events())
    assert capfd.readouterr().out == ""


def test_a_failed_run_is_marked_as_failed(run, config, events):
    mlflow = pytest.importorskip("mlflow")
    send("mlflow", run, config, events(0, 4, "failed"))
    stored = mlflow.MlflowClient().get_run(read_ids(run.path)["mlflow"])
    assert stored.info.status == "FAILED" and "it diverged" in stored.data.tags["alert.failed"]


def test_trackio_runs_of_one_name_are_kept_apart(tmp_path, run, config, events):
    pytest.importorskip("trackio")
    from mlxsched.runs.directory import RunDirectory

    other = RunDirectory.create(
        tmp_path / "elsewhere" / "run", config={}, plan={"updates_per_epoch": 10}, origins={}, versions={}
    )
    send("trackio", run, config, events())
    send("trackio", other, config, events())
    assert read_ids(run.path)["trackio"] == "run" and read_ids(other.path)["trackio"] == "run-2"


def test_files_of_trackers_stay_in_the_run_directory(run, config, events, tmp_path):
    for name in ("tensorboard", "wandb", "swanlab"):
        send(name, run, config, events())
    assert {path.name for path in Path(tmp_path).iterdir()} <= {"run", "trackio", "mlruns"}
