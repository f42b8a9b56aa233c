"""Streams and paths that the system refuses: one clear line, and no word of a bug."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory

FULL = Path("/dev/full")


def run(*arguments: str, **streams: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlxsched", *arguments]
    return subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE, **streams)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize(
    "arguments",
    [("presets",), ("presets", "--json"), ("--help",), ("--version",), ("plot", "cosine"), ("schedules",)],
)
def test_a_full_device_behind_stdout_is_named(arguments):
    with open(FULL, "w") as full:
        done = run(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Error: cannot write the output: No space left on device."


@pytest.mark.parametrize("arguments", [("presets",), ("schedules",)])
def test_characters_that_the_terminal_lacks_are_replaced(arguments):
    done = run(*arguments, stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and done.stderr.isascii() and done.stdout.isascii()


LONG = "x" * 5000


@pytest.mark.parametrize(
    "arguments",
    [
        ["resume", LONG],
        ["eval", LONG],
        ["generate", LONG, "--prompt", "x"],
        ["plot", LONG],
        ["train", "--run-dir", LONG],
        ["train", "--name", LONG],
        ["train", "--name", "a\0b"],
        ["train", "--config", LONG],
        ["plan", "--data", LONG],
        ["plan", "--data", "./" + LONG],
        ["plan", "--model", "./" + LONG],
        ["data", "check", LONG],
        ["presets", "copy", "laptop", LONG],
        ["plan", "--resume-adapter-file", LONG],
    ],
)
def test_a_name_that_no_file_system_takes_is_a_users_mistake(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert "bug" not in streams.err and "Traceback" not in streams.err
    assert os.listdir(tmp_path) == []


def test_lone_surrogates_in_names_and_records_are_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    name = os.fsdecode(b"run-\xff")
    RunDirectory.create(Path(name), config={}, origins={}, plan={}, versions={})
    (Path(name) / "metrics.jsonl").write_text(
        '{"kind": "train", "update": 0, "loss": 1.0, "lr": 1e-4}\n'
        '{"kind": "event", "update": 0, "code": "note", "message": "\\ud800"}\n'
    )
    for flags in ([], ["--json"]):
        assert main(["plot", name, *flags]) == 0
    assert main(["resume", name, "--plain"]) == 2
    assert "bug" not in capsys.readouterr().err


def test_a_metric_of_400_digits_is_named_with_its_line(tmp_path, capsys):
    RunDirectory.create(tmp_path / "a", config={}, origins={}, plan={}, versions={})
    (tmp_path / "a" / "metrics.jsonl").write_text(
        '{"kind": "train", "update": 0, "loss": 1.0, "lr": 1' + "0" * 400 + "}\n"
    )
    for flags in ([], ["--json"]):
        assert main(["plot", str(tmp_path / "a"), *flags]) == 2
        assert "metrics.jsonl:1: 'lr' is too large" in capsys.readouterr().err


def test_a_training_whose_display_lost_its_reader_goes_on_to_its_end(tmp_path):
    run_directory = tmp_path / "a"
    flags = ["--iters", "200", "--batch-size", "1", "--num-layers", "1", "--val-batches", "0", "--no-test"]
    command = [sys.executable, "-m", "mlxsched", "train", *flags, "--steps-per-report", "1", "--plain"]
    process = subprocess.Popen(
        [*command, "--run-dir", str(run_directory)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not process.stdout.readline().startswith("update 1/"):
        assert process.poll() is None
    process.stdout.close()
    assert process.wait(timeout=120) == 141
    run = RunDirectory.open(run_directory)
    assert run.info.status == "finished" and run.info.update == 200
    failures = [record for record in run.read_metrics() if record.get("code") == "sink_failed"]
    assert len(failures) == 1 and "the display failed" in failures[0]["message"]
