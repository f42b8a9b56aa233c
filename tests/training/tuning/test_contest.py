"""Who wins, by a clock that only the functions move."""

from __future__ import annotations

import pytest

from mlxsched.training.shape_times import Stopwatch
from mlxsched.training.tuning.contest import FEWEST, ROUNDS, contest


class Clock:
    """Functions take as long as they are said to; ``slower`` makes every call so many times as long."""

    def __init__(self):
        self.now, self.calls, self.slower = 0.0, [], 1.0

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        def run():
            self.calls.append(name)
            self.now += self.slower * (seconds() if callable(seconds) else seconds)

        return run


def race(allowed=1e9, **seconds):
    clock = Clock()
    functions = {name: clock.function(name, value) for name, value in seconds.items()}
    return contest(functions, Stopwatch(clock, allowed), clock), clock


def test_the_faster_one_is_first_and_the_default_is_the_last_resort():
    found, _ = race(default=1.0, faster=0.8, fastest=0.5, slower=1.2)
    assert found.ranking == ["fastest", "faster", "default"]
    assert found.gain("fastest") == pytest.approx(2.0)


def test_less_than_a_clear_margin_changes_nothing():
    assert race(default=1.0, other=0.97)[0].ranking == ["default"]
    assert race(default=1.0, other=0.90)[0].ranking == ["other", "default"]


def test_one_lucky_round_is_not_enough():
    lucky = iter([1.0, 1.0, 0.1])
    assert race(default=1.0, other=lambda: next(lucky, 1.0))[0].ranking == ["default"]


def test_one_disturbed_round_of_the_default_is_not_enough():
    disturbed = iter([1.0, 1.0, 9.0, 9.0])
    assert race(default=lambda: next(disturbed, 1.0), other=1.0)[0].ranking == ["default"]


def test_rounds_take_turns():
    _, clock = race(a=1.0, b=1.0)
    warm = ["a", "a", "b", "b"]
    assert clock.calls == warm + (["a", "b", "b", "a"] * ROUNDS)[: 2 * ROUNDS]


def test_what_takes_almost_no_time_is_repeated_in_a_round():
    found, clock = race(a=1e-4, b=2e-4)
    assert clock.calls.count("a") > 30 * ROUNDS
    assert found.best("a") == pytest.approx(1e-4)


def test_without_time_for_enough_rounds_the_default_stays():
    found, clock = race(allowed=5.0, default=1.0, other=0.1)
    assert len(found.seconds["default"]) < FEWEST
    assert found.ranking == ["default"]
    assert clock.now <= 5.0


def test_no_function_is_started_when_the_time_is_over():
    found, clock = race(allowed=2.5, default=2.0, other=0.1)
    assert "other" not in clock.calls
    assert found.ranking == ["default"]
