"""The machine that a run is on: its battery, its sleep, and MLX's memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx

from mlxsched.config.schema import RunConfig
from mlxsched.platform.power import Battery, SleepWatch, battery, is_low, keep_awake, wait_for_power
from mlxsched.runs.events import Notice, UpdateMade
from mlxsched.training.policies.base import Action, Policy, Report, Save
from mlxsched.training.progress import Progress

BATTERY_EVERY = 60.0  # seconds between looks at the battery, each of which starts a process on macOS


@contextmanager
def limits(config: RunConfig) -> Iterator[None]:
    """Set MLX's memory limits and keep the system awake as the config asks; restore both at the end."""
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


class NoticeSleep(Policy):
    """Report that the machine has slept: it explains a slow update."""

    def __init__(self) -> None:
        self._watch = SleepWatch()

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        slept = self._watch.check()
        if slept:
            text = f"the machine slept for {slept / 60:.0f} minutes"
            yield Report(Notice(progress.update, "slept", text))


class PauseOnBattery(Policy):
    """Save and wait for power when the battery is below ``percent``, unless ``stopping`` says that a signal came."""

    def __init__(self, percent: int, stopping: Callable[[], bool]) -> None:
        self._percent, self._stopping = percent, stopping
        self._looked = time.monotonic()

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        if time.monotonic() - self._looked < BATTERY_EVERY:
            return
        self._looked = time.monotonic()
        state = battery()
        if state is None or not is_low(state, self._percent):
            return
        yield Save()
        started = time.monotonic()
        wait_for_power(self._percent, stop=self._stopping)
        yield Report(Notice(progress.update, "paused", _pause_text(state, time.monotonic() - started)))


@dataclass(frozen=True)
class ClearCache(Policy):
    """Empty MLX's cache of free buffers whenever it holds more than ``above`` bytes."""

    above: int

    def after_update(self, progress: Progress, made: UpdateMade) -> Iterable[Action]:
        if mx.get_cache_memory() > self.above:
            mx.clear_cache()
        return ()


def _pause_text(state: Battery, seconds: float) -> str:
    return f"battery at {state.percent}%: paused for {seconds / 60:.0f} minutes"
