"""Stopping at a safe moment: a signal sets a flag, and the training loop reads it between updates."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

Handler = signal.Handlers | int | Callable[[int, FrameType | None], object] | None

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequest:
    """While it is active, the first SIGINT, SIGTERM or SIGHUP is recorded, and the second ends the process.

    ::

        with StopRequest() as stop:
            for update in range(steps):
                ...
                if stop:
                    raise Stopped("...", stop.signal_number)

    The handler calls `on_first` and `on_second` with the signal's number; they should be quick, and print only with `say`.
    The second signal then has its default effect, so a shell sees 130, 143 or 129 and a parent process the signal itself.
    A SIGHUP that is ignored (``nohup``) stays ignored. Outside the main thread Python allows no handlers, and the object is
    never set.
    """

    def __init__(
        self,
        on_first: Callable[[int], None] = lambda number: None,
        on_second: Callable[[int], None] = lambda number: None,
    ) -> None:
        self._number = 0
        self._on_first, self._on_second = on_first, on_second
        self._previous: dict[int, Handler] = {}

    @property
    def signal_number(self) -> int:
        """The signal that asks the run to stop; 0 as long as none does."""
        return self._number

    def __bool__(self) -> bool:
        return self._number != 0

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self:
            signal.signal(number, signal.SIG_DFL)
            self._on_second(number)
            os.kill(os.getpid(), number)
            return
        self._number = number
        self._on_first(number)


def say(text: str) -> None:
    """Write a line to standard error in one system call.

    For signal handlers: a signal may arrive during a `print`, whose buffer cannot be entered twice. A closed terminal is not
    an error.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
