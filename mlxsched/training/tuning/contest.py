"""Which of a few functions is the fastest, on a machine that others use as well."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlxsched.training.shape_times import Stopwatch

MARGIN = 1.05  # the default stays where another one is not faster by that factor
ROUNDS, FEWEST = 9, 3
TURN = 0.004  # seconds, at least, that a function is repeated for in a round


@dataclass(frozen=True)
class Contest:
    """Seconds of a call of each function in each round; the first one is the default."""

    seconds: Mapping[str, list[float]]

    @property
    def default(self) -> str:
        """The name of the function that stays without a clear winner."""
        return next(iter(self.seconds))

    def best(self, name: str) -> float:
        """The shortest time of the function ``name``; infinite where it has none."""
        return min(self.seconds[name], default=math.inf)

    def gain(self, name: str) -> float:
        """How many times as fast as the default: by the shortest times or by the median round, whichever says less.

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

    Each is called once before, which may compile it. Rounds are taken in turn, so that a change in the speed of the
    machine meets all of them.
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
    """Seconds of a call by ``clock``, over ``repeats`` calls, for which ``watch`` runs."""
    took = 0.0

    def turn() -> None:
        nonlocal took
        started = clock()
        for _ in range(repeats):
            function()
        took = clock() - started

    watch.time(turn)
    return took / repeats
