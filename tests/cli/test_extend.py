"""``extend`` and ``cooldown`` as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory

SHORT = ["--batch-size", "4", "--val-batches", "1", "--no-test", "--plain", "--schedule", "constant"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("extend") / "run"
    assert main(["train", "--iters", "4", *SHORT, "--run-dir", str(path)]) == 0
    return path


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_extend_says_what_it_does_and_then_does_it(run, capsys):
    assert main(["extend", str(run), "--steps", "+2", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["how"], plan["exact"], plan["at"], plan["updates"], plan["left"]) == ("on", True, 4, 6, 2)
    assert RunDirectory.open(run).info.requests == ()
    assert main(["extend", str(run), "--steps", "6", "--plain"]) == 0
    out, err = capsys.readouterr()
    assert re.search("bit-identical to a run planned for 6 updates.*, with the same tuning choice", err)
    assert "update 6/6" in err
    assert f"Before the extension or cooldown: {run}/earlier/000004" in out
    assert main(["eval", str(run / "earlier/000004"), "--limit", "4", "--no-generate"]) == 0
    assert main(["runs", str(run.parent), "--json"]) == 0


def test_cooldown_of_a_finished_run(run, capsys):
    assert main(["cooldown", str(run), "--dry-run"]) == 0
    assert "down to" in capsys.readouterr().out
    assert main(["cooldown", str(run), "--steps", "2", "--shape", "linear", "--json", "--plain"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["updates"] == 6 and result["earlier"] == [f"{run}/earlier/000004"]
    assert main(["cooldown", str(run)]) == 2
    assert f"mlxsched extend {run}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ([], "one of --steps, --epochs or --max-time"),
        (["--steps", "5", "--epochs", "1"], "one of --steps, --epochs or --max-time"),
        (["--steps", "1.5"], "--steps must be a number above 0"),
        (["--epochs", "nan"], "--epochs must be a number above 0"),
        (["--max-time", "soon"], "--max-time must be a duration"),
        (["--steps", "+5", "--peak", "0"], "--peak must be a rate above 0"),
        (["--steps", "4"], "already has 4 updates"),
        (["--steps", "+5", "--stretch"], "nothing of its shape is left to stretch"),
    ],
)
def test_what_does_not_fit_is_refused(run, flags, problem, capsys):
    assert main(["extend", str(run), *flags]) == 2
    assert problem in capsys.readouterr().err


def test_a_finished_run_is_told_how_to_go_on(run, capsys):
    assert main(["resume", str(run)]) == 2
    assert f"mlxsched extend {run} --epochs +1" in capsys.readouterr().err


def test_a_run_that_is_going_on_answers(tmp_path, capsys):
    command = [sys.executable, "-m", "mlxsched", "train", "--iters", "9000", *SHORT, "--run-dir", "run"]
    process = subprocess.Popen(
        [*command, "--steps-per-report", "1"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    assert any(line.startswith("update 3/") for line in process.stderr)
    run = str(tmp_path / "run")
    assert main(["extend", run, "--steps", "+5"]) == 2
    assert "in use by process" in capsys.readouterr().err
    assert main(["cooldown", run, "--end-lr", "1"]) == 1
    assert "refused: the rate is" in capsys.readouterr().err
    assert main(["cooldown", run, "--steps", "3", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["state"] == "accepted" and answer["updates"] == answer["at"] + 3
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert RunDirectory.open(tmp_path / "run").info.update == answer["updates"]


def test_a_request_without_an_answer_is_queued(run, capsys):
    with RunDirectory.open(run).lock():
        assert main(["cooldown", str(run), "--dry-run"]) == 0
        assert (
            "would receive a cooldown request" in capsys.readouterr().out
            and not (run / "request.json").exists()
        )
        assert main(["cooldown", str(run), "--wait", "0.1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["state"] == "queued"
    assert (run / "request.json").exists()
