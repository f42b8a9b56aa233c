"""Estimates the time of micro-batches by shape, from a few that are timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from mlxsched.data.batching.grid import Shape
from mlxsched.platform.kernels import building_so_far

REPEATS = 3  # per shape, after the call that compiles
LARGE = 10**10  # parameters times positions: a second or more on a CPU, so that half as many are tried first

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Times calls by ``clock``, ``allowed`` seconds in all."""

    clock: Callable[[], float]
    allowed: float
    spent: float = 0.0

    @property
    def left(self) -> float:
        """Seconds that are still allowed."""
        return self.allowed - self.spent

    def time(self, function: Callable[[], object]) -> float:
        """Call ``function``; returns the seconds that it took.

        If the call built kernels, which happens only once per machine, it is repeated and only the second call counts:
        without this, on a machine without kernels, a run of two minutes was estimated at 9.8 hours.
        """
        before = building_so_far()
        took = self._once(function)
        if building_so_far() != before:
            took = self._once(function)
        self.spent += took
        return took

    def value_of(self, function: Callable[[], T]) -> T:
        """What ``function`` returns; its time counts."""
        found: list[T] = []
        self.time(lambda: found.append(function()))
        return found[-1]

    def _once(self, function: Callable[[], object]) -> float:
        started = self.clock()
        function()
        return self.clock() - started


@dataclass
class ShapeTimes:
    """Seconds of the micro-batches that ``run`` computes.

    The time of a shape that was not timed follows from its positions: between two timed ones by interpolation, beyond the
    largest one along the line through the two largest, but at most in proportion to the positions. ``guess`` gives the
    time of a shape until one is timed.
    """

    run: Callable[[Shape], object]
    watch: Stopwatch
    guess: Callable[[Shape], float]
    known: dict[int, float] = field(default_factory=dict)
    compiling: list[float] = field(default_factory=list)

    def begin(self, shapes: Iterable[Shape], parameters: int) -> None:
        """Time the smallest of ``shapes``, and fewer of its rows if it may take seconds: no time is known yet."""
        self._time(_fewer_rows(min(shapes, key=_positions), parameters), self.watch.left, repeats=1)

    def measure(self, shapes: Sequence[Shape], share: float) -> None:
        """Time the mean of ``shapes``, then the largest, until ``share`` of what is left is spent.

        The mean comes first: where the time is linear in the positions, it alone gives the time of all shapes. A slow
        shape is not repeated, and is timed with fewer of its rows if it takes too long.
        """
        until = self.watch.spent + share * self.watch.left
        mean = statistics.fmean(map(_positions, shapes))
        rows, length = min(shapes, key=lambda shape: abs(_positions(shape) - mean))
        for shape in [(rows >> power, length) for power in range(rows.bit_length())]:
            if self._fits(shape, until):
                break
        self._fits(max(shapes, key=_positions), until)

    def seconds(self, shape: Shape) -> float:
        """Seconds of a micro-batch of ``shape`` after compilation."""
        positions = _positions(shape)
        sizes = sorted(self.known)
        if not sizes:
            return self.guess(shape)
        if len(sizes) == 1 or positions < sizes[0]:
            return self.known[sizes[0]] * positions / sizes[0]
        if positions > sizes[-1]:
            (first, last), (low, high) = sizes[-2:], (self.known[size] for size in sizes[-2:])
            slope = min(
                max((high - low) / (last - first), 0.0), high / last
            )  # the times of two similar sizes may differ by chance
            return high + slope * (positions - last)
        return float(np.interp(positions, sizes, [self.known[size] for size in sizes]))

    def sum(self, shapes: Iterable[Shape]) -> float:
        """Seconds of all ``shapes``, one after the other."""
        return sum(self.seconds(shape) for shape in shapes)

    def compiling_of(self, shapes: Iterable[Shape]) -> float:
        """Seconds of compiling each of ``shapes`` once.

        The first shape that was timed counts only if it is the only one: on a GPU, it may also build kernels that all shapes use.
        """
        return len(set(shapes)) * statistics.fmean(self.compiling[1:] or self.compiling or [0.0])

    def _fits(self, shape: Shape, until: float) -> bool:
        """Time ``shape`` if that fits; returns whether it is timed now."""
        room = until - self.watch.spent
        if _positions(shape) not in self.known and 2.3 * self.seconds(shape) < room:
            self._time(shape, room)
        return _positions(shape) in self.known

    def _time(self, shape: Shape, room: float, repeats: int = REPEATS) -> None:
        first = self.watch.time(lambda: self.run(shape))
        compiling = min(statistics.fmean(self.compiling or [0.0]), 0.9 * first)
        again: list[float] = []
        while len(again) < repeats and first + (len(again) + 1) * (first - compiling) <= room:
            again.append(self.watch.time(lambda: self.run(shape)))
        self.known[_positions(shape)] = statistics.fmean(again) if again else first - compiling
        if again:
            self.compiling.append(max(first - statistics.fmean(again), 0.0))


def _positions(shape: Shape) -> int:
    return shape[0] * shape[1]


def _fewer_rows(shape: Shape, parameters: int) -> Shape:
    rows, length = shape
    while rows > 1 and parameters * rows * length > LARGE:
        rows //= 2
    return rows, length
