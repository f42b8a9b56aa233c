"""Progress while MLX builds its CPU kernels, when a run has nothing else to show."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from mlxsched.platform.kernels import built_kernels


@contextlib.contextmanager
def watching_kernels(show: Callable[[int], bool], seconds: float = 2.0) -> Iterator[None]:
    """Call ``show`` with the number of kernels built so far, at most once every ``seconds``, until it returns False."""
    ended = threading.Event()
    before = built_kernels()

    def watch() -> None:
        shown = 0
        while not ended.wait(seconds):
            built = built_kernels() - before
            if built > shown:
                if not show(built):
                    break
                shown = built

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
