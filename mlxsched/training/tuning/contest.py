"""Finds the fastest of a few functions on a shared machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlxsched.training.shape_times import Stopwatch

MARGIN = 1.05  # another function replaces the default only if it is faster by this factor
ROUNDS, FEWEST = 9, 3
TURN = 0.004  # seconds for which a function is repeated in a round, at least


@dataclass(frozen=True)
class Contest:
    """Seconds per call of each function in each round; the first function is the default."""

    seconds: Mapping[str, list[float]]

    @property
    def default(self) -> str:
        """The name of the function that is used if there is no clear winner."""
        return next(iter(self.seconds))

    def best(self, name: str) -> float:
        """The shortest time of the function ``name``; infinite if it has none."""
        return min(self.seconds[name], default=math.inf)

    def gain(self, name: str) -> float:
        """The speed relative to the default: by the shortest times or by the median round, whichever is lower.

        >>> Contest({"a": [2.0, 2.0, 9.0], "b": [1.0, 1.0, 1.0]}).gain("b")
        2.0
        """
        pairs = list(zip(self.seconds[self.default], self.seconds[name], strict=False))
        if len(pairs) < FEWEST:
            return 1.0 if name == self.default else 0.0
        return min(self.best(self.default) / self.best(name), statistics.median(a / b for a, b in pairs))

    @property
    def ranking(self) -> list[str]:
        """The functions that are clearly faster than the default, the fastest first, and the default after them."""
        others = [name for name in self.seconds if name != self.default and self.gain(name) >= MARGIN]
        return [*sorted(others, key=self.gain, reverse=True), self.default]


def contest(
    functions: Mapping[str, Callable[[], object]], watch: Stopwatch, clock: Callable[[], float]
) -> Contest:
    """Call ``functions`` in turn, for `ROUNDS` rounds or until ``watch`` has no time left, timed by ``clock``.

    Each is called once before, which may compile it. The functions alternate, so that a change in the speed of the
    machine affects all of them.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    repeats: dict[str, int] = {}
    for name, function in functions.items():
        if watch.left <= 0:
            return Contest(times)
        watch.time(function)
        repeats[name] = math.ceil(TURN / max(watch.time(function), 1e-6))
    order, took = list(functions), 0.0
    for _ in range(ROUNDS):
        if took > watch.left:
            break
        before = watch.spent
        for name in order:
            times[name].append(_turn(functions[name], repeats[name], watch, clock))
        order.reverse()
        took = watch.spent - before
    return Contest(times)


def _turn(
    function: Callable[[], object], repeats: int, watch: Stopwatch, clock: Callable[[], float]
) -> float:
    """Seconds per call by ``clock``, over ``repeats`` calls; ``watch`` counts their time."""
    took = 0.0

    def turn() -> None:
        nonlocal took
        started = clock()
        for _ in range(repeats):
            function()
        took = clock() - started

    watch.time(turn)
    return took / repeats
