"""Trackers that write to the test's own directory, and a short recorded run to send to them."""

from __future__ import annotations

import math

import pytest

from mlxsched.config import load_config
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, Notice, RunFinished, RunStarted, UpdateMade


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("SWANLAB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    trackio = pytest.importorskip("trackio")
    monkeypatch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")


@pytest.fixture
def config():
    return load_config(flags={"steps_per_report": 2, "project_name": "tests", "iters": 5}).config


@pytest.fixture
def run(tmp_path, config):
    return RunDirectory.create(
        tmp_path / "run", config=config.to_dict(), plan={"updates_per_epoch": 10}, origins={}, versions={}
    )


def update(index: int) -> UpdateMade:
    return UpdateMade(
        index, loss=3.0 - index / 2, lr=1e-4 * index, grad_norm=1.5, tokens=100, targets=40, seconds=0.5
    )


@pytest.fixture
def events():
    """The events of a run of five updates; ``first`` and ``last`` cut a part out of it."""

    def make(first: int = 0, last: int = 5, status: str = "finished"):
        spike = [Notice(3, "spike", "the loss rose to 9.0")] if first <= 3 < last else []
        return [
            RunStarted(first, updates=5, resumed=first > 0),
            Evaluated(first, loss=3.5, perplexity=math.exp(3.5)),
            *(update(index) for index in range(first, last)),
            *spike,
            Evaluated(last, loss=1.25, perplexity=math.nan),
            RunFinished(last, status, "" if status == "finished" else "it diverged"),
        ]

    return make


@pytest.fixture
def run_short():
    """Train three updates on the bundled model, reported to MLflow."""

    def make(path):
        from mlxsched.tracking import sinks
        from mlxsched.training.run import create_run, execute
        from mlxsched.training.session import prepare

        loaded = load_config(flags={"iters": 3, "batch_size": 2, "val_batches": 1, "steps_per_report": 2})
        session = prepare(loaded.config, loaded.origins)
        run = create_run(session, path)
        execute(session, run, *sinks("mlflow", run, session.config))
        return run

    return make
