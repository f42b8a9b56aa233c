"""Stopping at the next good moment: a signal sets a flag, the training loop looks at it."""

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
    """While it is entered, the first SIGINT, SIGTERM or SIGHUP is remembered, and the second ends the process.

    ::

        with StopRequest() as stop:
            for update in range(steps):
                ...
                if stop:
                    raise Stopped("...", stop.signal_number)

    `on_first` and `on_second` are called with the number of the signal, from the handler: they should be quick, and
    print with `say` alone. The second signal then gets its default effect, so a shell sees 130, 143 or 129 and a
    parent process the signal itself. A SIGHUP that is ignored (``nohup``) stays ignored. Outside the main thread
    Python has no handlers: the object is then never set.
    """

    def __init__(
        self,
        on_first: Callable[[int], None] = lambda number: None,
        on_second: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.signal_number = 0
        self._on_first, self._on_second = on_first, on_second
        self._previous: dict[int, Handler] = {}

    def __bool__(self) -> bool:
        return self.signal_number != 0

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
        self.signal_number = number
        self._on_first(number)


def say(text: str) -> None:
    """Write a line to standard error in one system call.

    For signal handlers: they may come in the middle of a `print`, whose buffer can't be entered twice. A terminal that
    has gone is no error.
    """
    with contextlib.suppress(OSError):
        os.write(2, f"\n{text}\n".encode())
