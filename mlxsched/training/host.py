"""What a training does for the machine that it runs on: memory limits, staying awake, waiting for power."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from mlxsched.config.schema import RunConfig
from mlxsched.platform.power import Battery, SleepWatch, battery, is_low, keep_awake, wait_for_power
from mlxsched.runs.events import Event, Notice

BATTERY_EVERY = 60.0  # seconds between looks


@contextmanager
def limits(config: RunConfig) -> Iterator[None]:
    """MLX's memory limits and the system's sleep as the config wants them, and back as they were afterwards."""
    mx.reset_peak_memory()
    cache = mx.set_cache_limit(config.cache_limit) if config.cache_limit is not None else None
    wired = mx.set_wired_limit(config.wired_limit) if config.wired_limit and mx.metal.is_available() else None
    try:
        if not config.keep_awake:
            yield
        else:
            with keep_awake():
                yield
    finally:
        if cache is not None:
            mx.set_cache_limit(cache)
        if wired is not None:
            mx.set_wired_limit(wired)


class Host:
    """Looks at clock and battery between updates; returns what is worth recording."""

    def __init__(self, config: RunConfig, update: Callable[[], int], stopping: Callable[[], bool]) -> None:
        self._threshold = round(config.pause_below * 100) if config.pause_below else 0
        self._update, self._stopping = update, stopping
        self._sleep = SleepWatch()
        self._looked = time.monotonic()

    def __call__(self, save: Callable[[], None]) -> list[Event]:
        """Wait for power if the battery is low, after ``save``; also notice that the machine has slept."""
        events: list[Event] = []
        slept = self._sleep.check()
        if slept:
            events.append(Notice(self._update(), "slept", f"the machine slept for {slept / 60:.0f} minutes"))
        if self._threshold and time.monotonic() - self._looked >= BATTERY_EVERY:
            self._looked = time.monotonic()
            events += self._wait(save)
        return events

    def _wait(self, save: Callable[[], None]) -> list[Event]:
        state = battery()
        if state is None or not is_low(state, self._threshold):
            return []
        save()
        started = time.monotonic()
        wait_for_power(self._threshold, stop=self._stopping)
        return [Notice(self._update(), "paused", _pause_text(state, time.monotonic() - started))]


def _pause_text(state: Battery, seconds: float) -> str:
    return f"battery at {state.percent}%: paused for {seconds / 60:.0f} minutes"
