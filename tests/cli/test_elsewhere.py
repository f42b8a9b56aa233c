"""A run is found and continued from any folder, and after its project was moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory

SHORT = [
    "--iters",
    "4",
    "--batch-size",
    "2",
    "--val-batches",
    "1",
    "--no-test",
    "--plain",
    "--num-layers",
    "1",
]


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A folder with a data file, a copy of the model, and a finished run with relative paths."""
    from mlxsched.bundled import model_path

    home = tmp_path / "project"
    home.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))
    rows = [json.dumps({"prompt": f"say {i}", "completion": f"ok {i}"}) for i in range(20)]
    (home / "chats.jsonl").write_text("\n".join(rows) + "\n")
    shutil.copytree(model_path("tiny"), home / "own-model")
    assert main(["train", "--data", "chats.jsonl", "--model", "own-model", *SHORT, "--name", "j1"]) == 0
    return home


def test_a_run_is_used_from_another_folder_and_after_a_move(project, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["eval", "project/runs/j1", "--split", "valid", "--no-generate", "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    shutil.move(project, tmp_path / "moved")
    run = tmp_path / "moved" / "runs" / "j1"
    assert main(["eval", str(run), "--split", "valid", "--no-generate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == here["loss"]
    assert main(["generate", str(run), "--prompt", "say 1", "--max-tokens", "3"]) == 0
    RunDirectory.open(run).update_info(status="stopped")
    assert main(["resume", str(run), "--plain"]) == 0

    capsys.readouterr()
    (tmp_path / "moved" / "chats.jsonl").rename(tmp_path / "renamed.jsonl")
    assert main(["eval", str(run)]) == 2
    assert "--data" in capsys.readouterr().err
    assert main(["eval", str(run), "--data", "renamed.jsonl", "--split", "valid", "--no-generate"]) == 0
    assert main(["generate", str(run), "--prompt", "say 1", "--max-tokens", "3"]) == 0
    RunDirectory.open(run).update_info(status="stopped")
    assert main(["resume", str(run)]) == 2
    assert main(["resume", str(run), "--data", "renamed.jsonl", "--plain"]) == 0


def test_a_taken_name_names_the_way_on(project, capsys):
    arguments = ["train", "--data", "chats.jsonl", *SHORT, "--name", "j1"]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "finished run in runs/j1" in err and "mlxsched resume" not in err
    way_on = ["--resume-adapter-file", "runs/j1/adapters/adapters.safetensors", "--name", "j2"]
    assert f"{way_on[0]} {way_on[1]} --name" in err
    assert main([*arguments[:-2], "--model", "own-model", *way_on]) == 0
    assert main(["resume", "runs/j1"]) == 2
    assert " ".join(way_on[:2]) in capsys.readouterr().err
    RunDirectory.open(Path("runs/j1")).update_info(status="stopped")
    capsys.readouterr()
    assert main(arguments) == 2
    assert "mlxsched resume runs/j1" in capsys.readouterr().err


@pytest.mark.parametrize("killed_before", ["the last checkpoint was in run.json", "the end was in run.json"])
def test_a_kill_at_the_end_does_not_lose_the_results(project, capsys, killed_before):
    """By what the kill leaves: a checkpoint with the results, and a run.json that does not have them yet."""
    run = RunDirectory.open(Path("runs/j1"))
    finished = run.info
    assert finished.results["after"]["loss"] > 0 and finished.best
    if killed_before.startswith("the last"):
        run.update_info(status="running", update=0, best=None, results={})
    else:
        run.update_info(status="running")
    assert main(["resume", "runs/j1", "--plain"]) == 0
    again = RunDirectory.open(Path("runs/j1")).info
    assert (again.status, again.update, again.best, again.results) == (
        "finished",
        finished.update,
        finished.best,
        finished.results,
    )
