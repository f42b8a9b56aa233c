"""Ctrl-C on a terminal: a question, its answers, and what happens without one. Elsewhere: `test_stopping`."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from mlxsched.cli import interrupt
from mlxsched.runs.directory import RunDirectory

LONG = ["--iters", "5000", "--schedule", "constant", "--val-batches", "0", "--no-test", "--plain"]
LONG += ["--batch-size", "4", "--steps-per-report", "5"]


class Terminal:
    """A training in a terminal of its own."""

    def __init__(self, path) -> None:
        self.path, self.seen = path, ""
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "mlxsched", "train", *LONG, "--run-dir", str(path)]
        # A session of its own, with this terminal as the one that it may read from.
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAD, *command], stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)

    def wait_for(self, text: str) -> str:
        """Read until ``text`` comes; returns what came before it."""
        end = time.monotonic() + 120
        while text not in self.seen and time.monotonic() < end:
            if select.select([self._ours], [], [], 1)[0]:
                try:
                    self.seen += os.read(self._ours, 4096).decode("utf-8", "replace")
                except OSError:  # how Linux says that the other side is closed
                    break
        before, found, self.seen = self.seen.partition(text)
        assert found, before
        return before

    def press(self, keys: str) -> None:
        """Type ``keys``; ^C becomes a signal, as in any terminal."""
        os.write(self._ours, keys.encode())

    def ask(self) -> None:
        """Press Ctrl-C after some updates, and wait for the question."""
        self.wait_for("loss")
        self.press("\x03")
        self.wait_for("Ctrl-C  stop immediately")
        self.wait_for("then Enter")

    def end(self) -> int:
        """Wait for the end of the training."""
        code = self.process.wait(timeout=120)
        os.close(self._ours)
        return code


LEAD = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def training(tmp_path):
    terminal = Terminal(tmp_path / "run")
    yield terminal
    terminal.process.kill()
    terminal.process.wait()


def test_go_on_and_then_cool_down(training):
    training.ask()
    training.press("what?\n")
    training.wait_for("'what?' is not one of the choices.")
    training.wait_for("then Enter")
    training.press("g\n")
    training.ask()
    training.press("d\n")
    training.wait_for("cooling down from")
    assert training.end() == 0
    info = RunDirectory.open(training.path).info
    (request,) = info.requests
    assert info.status == "finished" and info.update == request.updates < 5000
    assert not (training.path / "request.json").exists()


def test_stop(training):
    training.ask()
    training.press("c\n")
    training.wait_for("everything is saved. Resume with: mlxsched resume")
    assert training.end() == 130
    assert RunDirectory.open(training.path).info.status == "stopped"


def test_a_second_ctrl_c_stops_at_once(training):
    training.ask()
    training.press("\x03")
    training.wait_for("Stopped immediately.")
    assert training.end() == -signal.SIGINT


def test_another_signal_is_not_held_up_by_the_question(training):
    training.ask()
    training.process.send_signal(signal.SIGTERM)
    training.wait_for("everything is saved")
    assert training.end() == 143


def test_without_an_answer_the_run_stops(monkeypatch, capsys):
    class Shown:
        made, left = 10, 90

        def eta(self, updates):
            return None

    ours, theirs = pty.openpty()
    with open(theirs) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(interrupt, "PATIENCE", 0.0)
        assert interrupt.Question(Shown(), 5).answer() == "c"
    os.close(ours)
    err = capsys.readouterr().err
    assert "No answer" in err
    assert "  Ctrl-C  stop immediately, keeping only the state after 5 updates\n" in err
