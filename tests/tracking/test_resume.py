"""A real training that is stopped and resumed: each tracker has one run, with every report once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import threading
import time
from pathlib import Path
from statistics import fmean

import pytest

from mlxsched.cli.main import main
from mlxsched.tracking import TRACKERS
from mlxsched.tracking.state import read_ids

INSTALLED = [name for name, module in TRACKERS.items() if importlib.util.find_spec(module)]
UPDATES = 24


def stop_at(checkpoint: Path) -> None:
    """Send this process a SIGINT, as Ctrl-C does, when ``checkpoint`` is there."""
    for _ in range(3000):
        if checkpoint.is_dir():
            os.kill(os.getpid(), signal.SIGINT)
            return
        time.sleep(0.01)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A run that was stopped after its first checkpoint, then finished by `mlxsched resume`; ids from before it."""
    pytest.importorskip("trackio")
    folder = tmp_path_factory.mktemp("tracked")
    with pytest.MonkeyPatch.context() as patch:
        set_up(patch, folder)
        flags = ["--report-to", ",".join(INSTALLED), "--project-name", "tests", "--steps-per-report", "2"]
        flags += [
            "--iters",
            str(UPDATES),
            "--batch-size",
            "2",
            "--save-every",
            "4",
            "--val-batches",
            "1",
            "--plain",
        ]
        killer = threading.Thread(target=stop_at, args=(folder / "run" / "checkpoints" / "000004",))
        killer.start()
        assert main(["train", *flags, "--run-dir", "run"]) == 130
        killer.join()
        before = read_ids(folder / "run")
        assert main(["resume", "run", "--plain"]) == 0
        yield folder / "run", before


def set_up(patch: pytest.MonkeyPatch, folder: Path) -> None:
    import trackio

    patch.chdir(folder)
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("SWANLAB_MODE", "offline")
    patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    patch.setenv("MLFLOW_TRACKING_URI", f"file:{folder}/mlruns")
    patch.setattr(trackio.sqlite_storage, "TRACKIO_DIR", folder / "trackio")


@pytest.fixture(autouse=True)
def offline(resumed):
    """In the place of the package's fixture, which makes a folder for each test."""


def check(run: Path, reports: list[tuple[int, float]]) -> None:
    """Every update is in one report, and each has the mean of its updates; the stop may have cut one short."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if row["kind"] == "train"]
    assert len(losses) == UPDATES
    ends = [step for step, _ in reports]
    assert ends == sorted(set(ends)) and ends[-1] == UPDATES
    for start, (end, loss) in zip([0, *ends], reports, strict=False):
        assert loss == pytest.approx(fmean(losses[start:end])), end


def test_the_run_was_stopped_in_the_middle_and_kept_its_ids(resumed):
    run, before = resumed
    assert set(before) == set(INSTALLED)
    assert read_ids(run) == before
    assert json.loads((run / "run.json").read_text())["status"] == "finished"


def test_trackio_has_one_run_with_every_report_once(resumed):
    import trackio

    run, ids = resumed
    rows = trackio.sqlite_storage.SQLiteStorage.get_logs("tests", ids["trackio"])
    losses = [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row]
    check(run, losses)
    assert len(trackio.Api().runs("tests")) == 1


def test_mlflow_has_one_run_with_every_report_once(resumed):
    mlflow = pytest.importorskip("mlflow")
    run, ids = resumed
    history = mlflow.MlflowClient().get_metric_history(ids["mlflow"], "train/loss")
    check(run, [(one.step, one.value) for one in history])
    assert mlflow.MlflowClient().get_run(ids["mlflow"]).info.status == "FINISHED"


def test_wandb_continues_under_the_same_id(resumed):
    pytest.importorskip("wandb")
    run, ids = resumed
    parts = list((run / "wandb").glob("offline-run-*/*.wandb"))
    # W&B names a folder by the second, so one start more or less shows, depending on the speed of the machine.
    assert len(parts) >= 2 and all(ids["wandb"] in part.name for part in parts)
