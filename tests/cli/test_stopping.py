"""Signals to commands, and runs that are in use: what is said, and the exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory

SHORT = ["--iters", "2", "--batch-size", "4", "--val-batches", "1", "--no-test", "--plain"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that was stopped, so that it can be resumed, measured and asked."""
    path = tmp_path_factory.mktemp("stopping") / "run"
    assert main(["train", *SHORT, "--run-dir", str(path)]) == 0
    RunDirectory.open(path).update_info(status="stopped")
    return path


def test_a_run_in_use_is_refused_before_anything_is_loaded(run, capsys):
    with RunDirectory.open(run).lock():
        assert main(["resume", str(run)]) == 2
    err = capsys.readouterr().err
    assert "in use by process" in err
    assert "Loading" not in err and "Resuming" not in err


LONG = ["--iters", "5000", "--val-batches", "1", "--no-test", "--plain", "--steps-per-report", "1"]
TWICE = """
import os, signal, sys
from mlxsched.cli.main import main
from mlxsched.training.step import UpdateStep
apply, made = UpdateStep.apply, []
saved = os.path.join(sys.argv[sys.argv.index("--run-dir") + 1], "checkpoints", "000002")
def signalled(self, *arguments):
    if not made and os.path.isdir(saved):  # in the middle of a later update, whose end is not waited for
        made.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    return apply(self, *arguments)
UpdateStep.apply = signalled
main(sys.argv[1:])
"""


def test_both_signals_to_a_training_are_answered(tmp_path):
    arguments = ["train", *LONG, "--run-dir", str(tmp_path / "run"), "--save-every", "2"]
    found = subprocess.run([sys.executable, "-c", TWICE, *arguments], capture_output=True, text=True)
    assert found.returncode == -signal.SIGINT
    _, first, second = found.stderr.rsplit("\n\n", 2)
    assert first == "Stopping after this update, with everything saved. Repeat to stop immediately."
    assert (
        second
        == f"Stopped immediately. The state after 2 updates is saved. Resume with: mlxsched resume {tmp_path}/run\n"
    )
    assert RunDirectory.open(tmp_path / "run").checkpoints.updates() == [0, 2]


def _interrupted(command: list[str], when: str) -> tuple[int, str, str]:
    """Run a command, send it SIGINT once it has printed the line `when` on stderr, and return code, stdout, stderr."""
    process = subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert f"{when}\n" in iter(process.stderr.readline, "")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_ctrl_c_in_the_middle_of_measuring_ends_with_130_and_no_traceback(run):
    code, out, err = _interrupted(["-m", "mlxsched", "eval", str(run)], "loss ...")
    assert (code, out) == (130, "") and "Traceback" not in err


# Says on stderr when the prompt is read, which a pipe does not show from outside.
READING = """
import sys
from mlxsched.cli.main import main
class Input:
    def read(self):
        print("reading", file=sys.stderr, flush=True)
        return sys.__stdin__.read()
sys.stdin = Input()
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_while_the_prompt_is_awaited_ends_with_130_and_no_traceback(run):
    code, out, err = _interrupted(["-c", READING, "generate", str(run), "--prompt", "-"], "reading")
    assert (code, out) == (130, "") and "Traceback" not in err
