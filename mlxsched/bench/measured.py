"""The cost of one short training: time, memory, padding."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass

import mlx.core as mx

from mlxsched.platform.kernels import children_seconds


@dataclass(frozen=True)
class Moment:
    """A reading of the clocks: CPU time (user and system) of this process and its children, and wall-clock time, in
    seconds.

    The children are the compilers that MLX starts on the CPU.
    """

    cpu: float
    wall: float

    @classmethod
    def now(cls) -> Moment:
        """Read both."""
        return cls(time.process_time() + children_seconds(), time.perf_counter())

    def since(self, earlier: Moment) -> float:
        """Seconds by the clock that counts: CPU time on the CPU backend, where other processes may take turns,
        and the wall's on a GPU, where the CPU only waits."""
        return self.cpu - earlier.cpu if by_cpu_time() else self.wall - earlier.wall


def by_cpu_time() -> bool:
    """Whether times are CPU time."""
    return mx.default_device().type == mx.DeviceType.cpu


@dataclass(frozen=True)
class LoopCost:
    """What one side of a round cost.

    ``epochs``: seconds of each epoch.  ``wall``: seconds of the first one by the wall's clock.  ``start``: seconds
    before the first update.  ``losses``: means over as many updates as mlx-lm reports at a time, first epoch.
    ``peak``: bytes above what was there before; ``start_peak``: those before the first update.  ``padded``: positions
    of an epoch, padding included.
    """

    epochs: list[float]
    wall: float
    start: float
    losses: list[float]
    peak: int
    start_peak: int
    padded: int


class PeakMemory:
    """Bytes of MLX's memory above what is in use when it is made."""

    def __init__(self) -> None:
        gc.collect()
        mx.synchronize()
        mx.clear_cache()
        mx.reset_peak_memory()
        self._before = mx.get_active_memory()

    def __call__(self) -> int:
        """The highest so far."""
        return mx.get_peak_memory() - self._before
