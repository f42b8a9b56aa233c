"""Completion, driven through the shell itself where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.cli.main import COMMANDS, main

DRIVE = """
compopt() { :; }  # bash has it only while it completes a line
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_mlxsched_completion mlxsched
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def bash(tmp_path, monkeypatch, capsys):
    """Complete the last of some words in bash; gives what it offers."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "bin" / "mlxsched"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlxsched "$@"\n')
    program.chmod(0o755)
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*words: str) -> list[str]:
        environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
        command = ["bash", "--norc", "-c", DRIVE, "bash", str(script), "mlxsched", *words]
        found = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert found.stderr == ""
        return found.stdout.split()

    return complete


def test_commands_and_flags(bash):
    assert set(bash("")) == set(COMMANDS)
    assert bash("pl") == ["plan", "plot"]
    assert "--learning-rate" in bash("train", "--lear")
    assert "--version" in bash("--ver")


def test_schedules_presets_trackers_and_values(bash):
    assert {"cosine", "cosine_restarts"} <= set(bash("train", "--schedule", "cos"))
    assert bash("train", "--preset", "lap") == ["laptop"]
    assert bash("train", "--optimizer", "ada") == ["adam", "adamw", "adafactor"]
    assert bash("train", "--report-to", "te") == ["tensorboard"]
    assert bash("presets", "show", "ws") == ["wsd"]
    assert "one_cycle" in bash("schedules", "show", "one")
    assert bash("completion", "f") == ["fish"]
    assert bash("import", "--from", "ax") == ["axolotl"]


def test_runs_and_files(bash):
    for name in ("laptop-001", "laptop-002"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "run.json").write_text("{}")
    Path("runs/other").mkdir()
    assert set(bash("eval", "runs/l")) >= {"runs/laptop-001", "runs/laptop-002"}
    assert "runs/other" not in bash("resume", "runs/l")
    assert "wsd" in bash("plot", "ws")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_of_other_shells(shell, capsys, tmp_path):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "_MLXSCHED_COMPLETE" in script and f"mlxsched completion {shell}" in script.partition("\n")[0]
    if shutil.which(shell):
        path = tmp_path / "script"
        path.write_text(script)
        subprocess.run([shell, "-n", str(path)], check=True)


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err
