"""The limit stops a busy block, leaves others alone, and restores what it changed."""

from __future__ import annotations

import contextlib
import signal
import threading

import pytest

from mlxsched.data.time_limit import TimeLimitExceeded, time_limit


def test_a_busy_block_is_stopped_though_it_catches_everything() -> None:
    with pytest.raises(TimeLimitExceeded), time_limit(0.05):
        while True:
            with contextlib.suppress(Exception):
                sum(range(1000))


def test_the_handler_and_the_timer_are_restored() -> None:
    before = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(ValueError, match="mine"), time_limit(60):
        raise ValueError("mine")
    assert signal.getsignal(signal.SIGVTALRM) is before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_another_thread_runs_without_a_limit() -> None:
    done: list[int] = []

    def work() -> None:
        with time_limit(0.001):
            done.append(sum(range(10)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [45]
