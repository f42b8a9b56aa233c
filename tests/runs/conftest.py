"""Real crashes and real full disks for the tests of the run directory."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

FILE_EVENTS = ("open", "os.")


def _fork(work: Callable[[], None], before: Callable[[], None] = lambda: None) -> int:
    """Run `work` in a child process; its exit status is 0 when it came to its end."""
    child = os.fork()
    if child == 0:
        try:
            before()
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def _kill_before_event(number: int) -> None:
    """Kill this process just before its file operation `number`."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event.startswith(FILE_EVENTS) and event != "os.kill":
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


@pytest.fixture
def killed_at_event() -> Callable[[Callable[[], None], int], bool]:
    """``killed_at_event(work, n)``: was `work`, in a process of its own, killed before its n-th file operation?"""

    def run(work: Callable[[], None], number: int) -> bool:
        status = os.waitpid(_fork(work, lambda: _kill_before_event(number)), 0)[1]
        assert status in (0, signal.SIGKILL), f"the child failed by itself: {status}"
        return status != 0

    return run


@pytest.fixture
def killed_after() -> Callable[[Callable[[], None], float], None]:
    """``killed_after(work, seconds)`` repeats `work` in a process of its own until SIGKILL comes."""

    def forever(work: Callable[[], None]) -> None:
        while True:
            work()

    def run(work: Callable[[], None], seconds: float) -> None:
        child = _fork(lambda: forever(work))
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "the child failed by itself"

    return run


@pytest.fixture
def moments() -> Iterator[float]:
    """Random moments of the first 30 ms, the same in every run of the tests."""
    generator = random.Random(5)
    return iter(lambda: generator.uniform(0.0, 0.03), None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 kB; skips where one can't be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode != 0:
        pytest.skip(f"a small file system needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def watching() -> Callable[[Callable[[], None], Callable[[], None]], int]:
    """``watching(work, look)``: call `look` in a thread all the while that `work` runs; how often it was called."""

    def watch(look: Callable[[], None], done: threading.Event) -> int:
        looks = 0
        while not done.is_set():
            look()
            looks += 1
        return looks

    def run(work: Callable[[], None], look: Callable[[], None]) -> int:
        done = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            looks = pool.submit(watch, look, done)
            try:
                work()
            finally:
                done.set()
            return looks.result()

    return run
