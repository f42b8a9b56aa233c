"""The aliases' own shapes: against formulas in plain Python, in float32, at odd places and far out."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlxsched as ms
from mlxsched.schedules.base import Schedule

RATES = st.floats(1e-6, 1e-1)
LENGTHS = st.integers(1, 5000)
DTYPES = (mx.uint32, mx.uint64, mx.int64)


def reference_through(s: ms.through, t: int) -> float:
    """Interpolation by bisection; of two points at one step the later one counts."""
    if t < s.at[0]:
        return s.values[0]
    i = bisect.bisect_right(s.at, t) - 1
    if i == len(s.at) - 1:
        return s.values[-1]
    p = (t - s.at[i]) / (s.at[i + 1] - s.at[i])
    low, high = s.values[i : i + 2]
    return low + (high - low) * (p if s.shape == "linear" else (1 - math.cos(math.pi * p)) / 2)


def reference_wave(s: ms.cosine_wave, t: int) -> float:
    turns = math.fmod(s.cycles * t / s.decay_steps, 1.0)
    return s.end + (s.peak - s.end) * (1 + math.cos(2 * math.pi * turns)) / 2


def reference_restarts(s: ms.restarts, t: int) -> float:
    """Walk from cycle to cycle; the lengths drawn below are exact in binary, so the starts are too."""
    if s.until is not None and t >= s.until:
        return s.end
    index, length, start = 0, s.first, 0.0
    while t >= start + length:
        index, start, length = index + 1, start + length, length * s.multiplier
    p = (t - start) / length
    down = {
        "cosine": (1 + math.cos(math.pi * p**s.k)) / 2,
        "polynomial": (1 - p**s.k) ** s.power,
        "tanh": (1 - math.tanh(s.lower * (1 - p) + s.upper * p)) / 2,
    }[s.shape]
    if s.shrinks == "peak":
        return s.end + (s.peak * s.decay**index - s.end) * down
    return s.end + (s.peak - s.end) * s.decay**index * down


def reference_stretched(s: ms.stretched_polynomial, t: int) -> float:
    n = s.decay_steps * max(1, math.ceil(t / s.decay_steps))
    return s.end + (s.init - s.end) * (1 - t / n) ** s.power


def reference_falling(s: ms.falling_plateau, t: int) -> float:
    held = s.peak
    if s.timescale is not None:
        held = max(s.end, s.peak * (1 + t / s.timescale) ** -s.stable_power)
    p = min(max(t - s.stable_steps, 0) / s.decay_steps, 1.0)
    r = s.tail_ratio
    tail = {
        "linear": 1 - p,
        "1-sqrt": 1 - math.sqrt(p),
        "cosine": (1 + math.cos(math.pi * p)) / 2,
        "power": 1 - p**s.tail_power,
        "exp": (r**p - r) / (1 - r),
    }[s.tail]
    return s.end + (held - s.end) * tail


@st.composite
def points(draw: st.DrawFn) -> ms.through:
    at = sorted(draw(st.lists(st.floats(-2, 3000), min_size=2, max_size=5)))
    values = draw(st.lists(RATES, min_size=len(at), max_size=len(at)))
    return ms.through(at, values, draw(st.sampled_from(["linear", "cosine"])))


KINDS: dict[str, tuple[st.SearchStrategy[Schedule], Callable[..., float]]] = {
    "through": (points(), reference_through),
    "cosine_wave": (
        st.builds(ms.cosine_wave, RATES, LENGTHS, st.sampled_from([0.25, 0.3, 0.5, 1.0, 2.5]), RATES),
        reference_wave,
    ),
    "restarts": (
        st.builds(
            ms.restarts,
            peak=st.floats(1e-3, 1e-1),
            first=st.integers(4, 400).map(lambda n: n / 4),
            multiplier=st.sampled_from([1.0, 1.5, 2.0, 3.0]),
            decay=st.sampled_from([1.0, 0.5, 0.9]),
            until=st.none() | st.integers(1, 3000),
            end=st.floats(0, 1e-4),
            shrinks=st.sampled_from(["peak", "height"]),
            shape=st.sampled_from(["cosine", "polynomial", "tanh"]),
            power=st.sampled_from([0.5, 1.0, 2.0]),
            k=st.sampled_from([0.5, 1.0, 1.5]),
        ),
        reference_restarts,
    ),
    "stretched_polynomial": (
        st.builds(ms.stretched_polynomial, RATES, LENGTHS, RATES, st.sampled_from([0.5, 1.0, 2.0])),
        reference_stretched,
    ),
    "falling_plateau": (
        st.builds(
            ms.falling_plateau,
            peak=st.floats(1e-3, 1e-1),
            stable_steps=st.integers(0, 2000),
            decay_steps=LENGTHS,
            end=st.floats(0, 1e-4),
            timescale=st.none() | st.floats(1, 500),
            stable_power=st.sampled_from([0.3, 0.5]),
            tail=st.sampled_from(["linear", "1-sqrt", "cosine", "power", "exp"]),
            tail_power=st.sampled_from([0.5, 2.0]),
        ),
        reference_falling,
    ),
}


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_values_are_the_formulas_in_float64_and_in_float32(name: str, data: st.DataObject) -> None:
    made, reference = KINDS[name]
    schedule = data.draw(made)
    steps = [*data.draw(st.lists(st.integers(0, 6000), min_size=1, max_size=12)), 0, 1]
    exact = [schedule(t) for t in steps]
    np.testing.assert_allclose(exact, [reference(schedule, t) for t in steps], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(schedule(np.array(steps)), exact, rtol=1e-12, atol=1e-18)
    for dtype in DTYPES:
        single = np.array(schedule(mx.array(steps, dtype)), np.float64)
        np.testing.assert_allclose(single, exact, rtol=2e-6, atol=1e-11)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_far_out_it_is_finite_not_negative_and_the_same_in_float32(name: str, data: st.DataObject) -> None:
    schedule = data.draw(KINDS[name][0])
    far = data.draw(st.lists(st.integers(2**24, 2**32 - 1), min_size=1, max_size=6))
    exact = [schedule(t) for t in far]
    assert all(0 <= rate <= 0.1 for rate in [*exact, schedule(10**12)])
    single = np.array(schedule(mx.array(far, mx.uint64)), np.float64)
    np.testing.assert_allclose(single, exact, rtol=5e-6, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(schedule=points())
def test_the_extrema_of_points_are_those_of_every_step(schedule: ms.through) -> None:
    table = schedule.table(3005)
    found = schedule.extrema(3005)
    assert (found.low, found.high) == (min(table), max(table))


@pytest.mark.parametrize("name", KINDS)
def test_one_trace_serves_every_step(name: str) -> None:
    schedule = ms.parse(ms.schedules.entry(name).spec)
    compiled = mx.compile(schedule)
    for step in (0, 7, 29, 30, 500, 2000):
        at = mx.array(step, mx.uint64)
        assert compiled(at).item() == pytest.approx(schedule(step), rel=2e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ("through(at=[0], values=[1e-3])", "points"),
        ("through(at=[5, 0], values=[1e-3, 1e-4])", "ascend"),
        ("through(at=[0, 5], values=[1e-3, -1e-4])", "values"),
        ("restarts(peak=1e-3, first=10, multiplier=0.5)", "multiplier"),
        ("restarts(peak=1e-3, first=10, shape='cosin')", "cosine"),
        ("cosine_wave(peak=1e-3, decay_steps=0)", "decay_steps"),
        ("falling_plateau(peak=1e-3, stable_steps=1, decay_steps=5, tail_ratio=1.5)", "tail_ratio"),
    ],
)
def test_wrong_arguments_are_refused(spec: str, hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.parse(spec)
