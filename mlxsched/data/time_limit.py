"""A limit on the processor time of a block of Python code."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class TimeLimitExceeded(BaseException):
    """The block took too long. Not an `Exception`, so that code inside that catches everything lets it through."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitExceeded` if the block takes more than ``seconds`` of processor time.

    Processor time, because on a busy machine harmless code may take long by the clock. Works in the main thread
    only, where Python delivers signals; elsewhere the block runs without a limit.

    >>> with time_limit(1.0):
    ...     sum(range(10))
    45
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handler():
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)


@contextlib.contextmanager
def many_time_limits() -> Iterator[None]:
    """Make each `time_limit` in the block cheaper: most of its time goes into setting the signal handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    with _handler():
        yield


_is_set = False


@contextlib.contextmanager
def _handler() -> Iterator[None]:
    global _is_set
    if _is_set:
        yield
        return
    previous = signal.signal(signal.SIGVTALRM, _exceeded)
    _is_set = True
    try:
        yield
    finally:
        _is_set = False
        signal.signal(signal.SIGVTALRM, previous)


def _exceeded(signal_number: int, frame: FrameType | None) -> None:
    raise TimeLimitExceeded
