"""Ctrl-C and other signals during a training: stop with everything saved, or, on a terminal, ask."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from secrets import token_hex
from types import FrameType
from typing import TYPE_CHECKING

from mlxsched.cli.output import note
from mlxsched.platform.signals import StopRequest, say
from mlxsched.runs.requests import CooldownAsked, ask
from mlxsched.text import clock, counted
from mlxsched.training.cooling import cooldown_steps

if TYPE_CHECKING:
    from mlxsched.cli.progress import Display
    from mlxsched.runs.directory import RunDirectory

PATIENCE = 60.0  # seconds; a run whose user has gone away after Ctrl-C stops, as one without a terminal does
STOPPING = "Stopping after this update, with everything saved. Repeat to stop immediately."


def stop_request(run: RunDirectory, display: Display) -> StopRequest:
    """What answers signals during the training of ``run``: the first one waits for the end of the update, the second one
    does not. On a terminal, the first Ctrl-C asks.
    """

    def first(_: int) -> None:
        say(STOPPING)

    def second(_: int) -> None:
        saved = counted(run.info.update, "update")
        cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # which the live display hides
        say(
            f"{cursor}Stopped immediately. The state after {saved} is saved. Resume with: mlxsched resume {run.path}"
        )

    if not (_is_terminal(sys.stdin) and _is_terminal(sys.stderr)):
        return StopRequest(first, second)
    return AskingStop(first, second, run, display)


class AskingStop(StopRequest):
    """A `StopRequest` that asks after a Ctrl-C whether to stop, to cool down, or to go on.

    The training goes on meanwhile. The handler only takes a note: question and answer are handled where the loop asks for
    `signal_number`, between two updates. Another Ctrl-C stops at once, any other signal after the update, and so does
    silence for `PATIENCE` seconds.
    """

    def __init__(
        self,
        on_first: Callable[[int], None],
        on_second: Callable[[int], None],
        run: RunDirectory,
        display: Display,
    ) -> None:
        super().__init__(on_first, on_second)
        self._run, self._display = run, display
        self._interrupted = False
        self._question: Question | None = None

    @property
    def signal_number(self) -> int:
        """The signal that asks the run to stop; 0 as long as none does."""
        if self._interrupted and not self._number:
            self._look()
        return self._number

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and not self._number and not self._interrupted and _in_foreground():
            self._interrupted = True
            say("What now? Asking after this update. Ctrl-C again stops immediately.")
            return
        if number == signal.SIGINT and self._interrupted:
            self._number = number  # the second one
        super()._handle(number, frame)

    def _look(self) -> None:
        """Ask, or look for the answer."""
        if self._question is None:
            self._display.pause()
            self._question = Question(self._display, self._run.info.update)
        answer = self._question.answer()
        if not answer:
            return
        self._interrupted, self._question = False, None
        if answer == "c":
            self._number = signal.SIGINT
            note(STOPPING)
        elif answer == "d":
            self._cool_down()
        self._display.unpause()

    def _cool_down(self) -> None:
        """Ask for a cooldown as another process would (`mlxsched cooldown`)."""
        steps = cooldown_steps(self._display.made, self._display.left)
        ask(self._run.path, CooldownAsked(token_hex(6), os.getpid(), socket.gethostname(), steps))


class Question:
    """The question after a Ctrl-C. After an invalid answer, it says so and asks again."""

    def __init__(self, display: Display, saved: int) -> None:
        termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)  # discard earlier input
        can_decay = display.made > 0 and display.left > 0
        self._choices = "cdg" if can_decay else "cg"
        self._end = time.monotonic() + PATIENCE
        note(f"After update {display.made:,}; training continues while this waits for an answer.")
        note("  c  checkpoint and stop")
        if can_decay:
            note(f"  d  decay: {_offer(display)}")
        note("  g  go on")
        note(f"  Ctrl-C  stop immediately, keeping only the state after {counted(saved, 'update')}")
        self._prompt()

    def answer(self) -> str:
        """The letter of the choice; empty until there is one."""
        if time.monotonic() >= self._end:
            note(f"\nNo answer in {PATIENCE:g} s.")
            return "c"
        if not _in_foreground() or not select.select([sys.stdin], [], [], 0)[0]:
            return ""
        try:
            line = os.read(sys.stdin.fileno(), 1024)
        except OSError:  # the terminal is gone
            return "c"
        text = line.decode("utf-8", "replace").strip()
        letter = text.lower()[:1]
        if not line:  # the terminal is gone, or Ctrl-D
            return "c"
        if letter in self._choices and letter:
            return letter
        if letter:
            note(f"{text[:20]!r} is not one of the choices.")
        self._prompt()
        return ""

    def _prompt(self) -> None:
        letters = ", ".join(self._choices[:-1]) + f" or {self._choices[-1]}"
        left = max(self._end - time.monotonic(), 0.0)
        text = f"Type {letters}, then Enter; without an answer the run stops in {left:.0f} s: "
        with suppress(OSError):
            os.write(2, text.encode())


def _offer(display: Display) -> str:
    steps = cooldown_steps(display.made, display.left)
    seconds = display.eta(steps)
    takes = "" if seconds is None else f" (about {clock(seconds)})"
    return f"cool down in {counted(steps, 'update')}{takes}, then finish"


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # None where it was closed
    except (AttributeError, ValueError):
        return False


def _in_foreground() -> bool:
    """Whether this process may read from its terminal; a background job that tries is suspended."""
    with suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False
