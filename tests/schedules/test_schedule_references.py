"""Our values against the formulas of the papers, written down once more and plainly, in extended precision."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import OURS

import mlxsched as ms

Wide = np.longdouble


def rise(s, t, shape="linear"):
    p = np.minimum(t / Wide(max(s.warmup_steps, 1)), 1)
    return (
        s.peak
        * {
            "linear": p,
            "cosine": (1 - np.cos(np.pi * p)) / 2,
            "sqrt": np.sqrt(p),
            "1-sqrt": 1 - np.sqrt(1 - p),
            "quadratic": p**2,
            "exponential": (1 - np.exp(-5 * p)) / (1 - np.exp(Wide(-5))),
            "radam": np.sqrt(radam(6 * p) / radam(Wide(6))),
        }[shape]
    )


def radam(x):
    x = np.maximum(x, Wide(1e-8))
    return np.where(x <= 1e-8, 0, 1 - x / np.expm1(x))


def tail(shape, p, top, end):
    if shape == "geometric":
        return top * (Wide(end) / top) ** p
    weight = {
        "linear": 1 - p,
        "cosine": (1 + np.cos(np.pi * p)) / 2,
        "1-sqrt": 1 - np.sqrt(p),
        "1-square": 1 - p**2,
        "exponential": 2 * Wide(0.5) ** p - 1,
        "mirror-cosine": 2 * (1 - p) - (1 + np.cos(np.pi * p)) / 2,
    }[shape]
    return end + (Wide(top) - end) * weight


def share(t, start, stop):
    return np.clip((t - Wide(start)) / max(stop - start, 1), 0, 1)


def warmed(s, t, rest, shape="linear"):
    return np.where(t < s.warmup_steps, rise(s, t, shape), rest)


def wsd(s, t):
    start = s.steps - s.decay_steps
    fall = tail(s.shape, share(t, start, s.steps), s.peak, s.end)
    fall = np.where(t >= s.steps, s.end if s.decay_steps else s.peak, np.where(t < start, s.peak, fall))
    return warmed(s, t, fall, s.warmup_shape)


def tanh(s, t):
    p = share(t, 0, s.steps)
    x = s.lower * (1 - p) + s.upper * p
    low, high = np.tanh(Wide(s.lower)), np.tanh(Wide(s.upper))
    return s.end + (Wide(s.init) - s.end) * (high - np.tanh(x)) / (high - low)


def cyclic(s, t):
    up, down = s.up, s.down or s.up
    cycle, here = np.divmod(t, up + down)
    triangle = np.where(here < up, here / Wide(up), 1 - (here - up) / Wide(down))
    strength = {"triangular": Wide(1), "triangular2": Wide(0.5) ** cycle, "exp_range": Wide(s.gamma) ** t}
    return s.low + (Wide(s.high) - s.low) * triangle * strength[s.mode]


def jagged(s, t):
    p = share(t, s.warmup_steps, s.steps)
    smooth = warmed(s, t, tail("cosine", p, s.peak, s.end))
    ramp = np.minimum(1, (t % s.every) / Wide(max(s.rewarm, 1))) if s.rewarm else 1
    return np.where((t < s.every) | (t >= s.steps), smooth, smooth * ramp)


def chebyshev(s, t):
    order = np.array([1])
    while len(order) < s.period:  # the fractal permutation of arXiv 2103.01338, counted from 1
        order = np.stack([order, 2 * len(order) + 1 - order]).T.ravel()
    angles = (2 * order - 1) * np.pi / Wide(2 * s.period)
    small, big = 1 / Wide(s.high), 1 / Wide(s.low)
    return (1 / ((big + small) / 2 - (big - small) / 2 * np.cos(angles)))[(t % s.period).astype(int)]


def inverse_sqrt(s, t):
    timescale = s.timescale or s.warmup or 10_000
    decayed = s.peak / np.sqrt((t - s.warmup + Wide(timescale)).clip(min=timescale) / timescale)
    return np.where(t < s.warmup, s.peak * t / Wide(max(s.warmup, 1)), decayed)


def noam(s, t):
    t1 = np.maximum(t, 1)
    best = np.minimum(t1 ** Wide(-0.5), t1 * Wide(s.warmup) ** Wide(-1.5))
    return np.where(t == 0, 0, s.scale * Wide(s.d_model) ** Wide(-0.5) * best)


def power(s, t):
    def law(n):
        return np.minimum(s.peak, s.batch_size * s.a * (Wide(s.tokens) * np.maximum(n, 1)) ** s.b)

    return np.where(t < s.warmup, law(s.warmup) * t / max(s.warmup, 1), law(t))


def power_law(s, t):
    decayed = s.peak * (np.maximum(t, s.warmup) / Wide(s.warmup)) ** s.exponent
    return np.where(t < s.warmup, s.peak * t / Wide(s.warmup), decayed)


def part(schedule, t):
    """The float64 values of a schedule inside another one."""
    return schedule(np.maximum(t, 0).astype(np.int64)).astype(Wide)


def piecewise(s, t):
    marks, values = np.array(s.boundaries, Wide), np.array(s.values, Wide)
    index = np.clip(np.searchsorted(marks, t, side="right") - 1, 0, len(marks) - 1)
    after = np.minimum(index + 1, len(marks) - 1)
    if s.shape == "constant":
        return values[index]
    p = np.clip((t - marks[index]) / np.maximum(marks[after] - marks[index], 1), 0, 1)
    return values[after] + (values[index] - values[after]) * (
        1 - p if s.shape == "linear" else np.cos(np.pi * p / 2) ** 2
    )


def wsd_cycles(s, t):
    length = (s.steps - s.warmup_steps) // s.cycles
    fall = max(1, round(s.decay * length))
    ahead = (s.steps - t) % length  # to the end of the cycle
    p = share(fall - np.where(ahead == 0, length, ahead), 0, fall)
    held = np.where(t >= s.steps, s.end, tail(s.shape, p, s.peak, s.end))
    return warmed(s, t, np.where(t <= s.steps - s.cycles * length, s.peak, held))


def with_warmup(s, t):
    p, top = np.minimum(t / Wide(max(s.warmup, 1)), 1), part(s.schedule, np.zeros(1))
    shape = rise(SimpleNamespace(peak=Wide(1), warmup_steps=s.warmup), t, s.shape) if s.warmup else p
    return np.where(t < s.warmup, s.init + (top - s.init) * shape, part(s.schedule, t - s.warmup))


def cooldown(s, t):
    p, top = share(t, s.start, s.start + s.decay_steps), part(s.schedule, np.array([s.start]))
    fall = np.where(p >= 1, s.end, tail(s.shape, p, top, s.end))
    return np.where(t < s.start, part(s.schedule, t), fall)


def repeat(s, t):
    here = t % s.period
    return part(s.schedule, here if s.times is None else np.where(t < s.times * s.period, here, s.period))


def join(s, t):
    which = np.searchsorted(np.array(s.boundaries), t, side="right")
    starts = (0, *s.boundaries)
    return np.select([which == i for i in range(len(starts))],
                     [part(one, t - start) for one, start in zip(s.schedules, starts, strict=True)])  # fmt: skip


REFERENCES = {
    "constant": lambda s, t: np.full(len(t), s.peak, Wide),
    "budgeted": lambda s, t: tail("linear", share(t, 0, s.steps), s.peak, 0),
    "trapezoid": lambda s, t: wsd(
        SimpleNamespace(
            **vars(s),
            warmup_steps=s.warmup_steps,
            decay_steps=s.decay_steps,
            shape="linear",
            warmup_shape="linear",
        ),
        t,
    ),
    "piecewise": piecewise,
    "table": lambda s, t: np.array(s.values, Wide)[np.minimum(t, len(s.values) - 1).astype(int)],
    "wsd_cycles": wsd_cycles,
    "with_warmup": with_warmup,
    "cooldown": cooldown,
    "scale": lambda s, t: s.factor * part(s.schedule, t),
    "clamp": lambda s, t: np.clip(part(s.schedule, t), s.low, s.high),
    "shift": lambda s, t: part(s.schedule, t - s.updates),
    "repeat": repeat,
    "product": lambda s, t: np.prod([part(one, t) for one in s.schedules], axis=0),
    "join_schedules": join,
    "warmup_constant": lambda s, t: s.peak * np.minimum(t / Wide(max(s.warmup, 1)) if s.warmup else 1, 1),
    "warmup_linear": lambda s, t: warmed(
        s, t, tail("linear", share(t, s.warmup_steps, s.steps), s.peak, s.end)
    ),
    "warmup_cosine": lambda s, t: warmed(
        s, t, tail("cosine", share(t, s.warmup_steps, s.steps), s.peak, s.end)
    ),
    "wsd": wsd,
    "flat_cosine": lambda s, t: warmed(s, t, tail("cosine", share(t, s.flat_steps, s.steps), s.peak, s.end)),
    "knee": lambda s, t: warmed(
        s, t, tail("linear", share(t, s.warmup_steps + s.hold_steps, s.steps), s.peak, 0)
    ),
    "jagged": jagged,
    "cyclic": cyclic,
    "chebyshev": chebyshev,
    "linear": lambda s, t: tail("linear", share(t, 0, s.steps), s.init, s.end),
    "cosine": lambda s, t: (
        s.end + (Wide(s.init) - s.end) * ((1 + np.cos(np.pi * share(t, 0, s.steps))) / 2) ** s.exponent
    ),
    "polynomial": lambda s, t: s.end + (Wide(s.init) - s.end) * (1 - share(t, 0, s.steps) ** s.k) ** s.power,
    "log_sweep": lambda s, t: s.init * (Wide(s.end) / s.init) ** share(t, 0, s.steps),
    "one_minus_sqrt": lambda s, t: tail("1-sqrt", share(t, 0, s.steps), s.init, s.end),
    "rex": lambda s, t: (
        s.end
        + (Wide(s.init) - s.end)
        * (1 - share(t, 0, s.steps))
        / (1 - s.beta + s.beta * (1 - share(t, 0, s.steps)))
    ),
    "tanh": tanh,
    "exponential": lambda s, t: s.init * Wide(s.factor) ** t,
    "inverse_time": lambda s, t: (
        s.init / (1 + s.decay * (t // s.every if s.staircase else t / Wide(s.every)))
    ),
    "inverse_sqrt": inverse_sqrt,
    "noam": noam,
    "power": power,
    "power_law": power_law,
    "multistep": lambda s, t: (
        s.init * Wide(s.factor) ** sum((t >= m).astype(int) for m in (*s.milestones, 2**62))
    ),
}


@pytest.mark.parametrize("name", sorted(REFERENCES))
@given(data=st.data())
def test_values_are_those_of_the_formula(name, data):
    schedule = data.draw(OURS[name])
    last = min(2 * (schedule.steps or 10**6), 2**40)
    steps = np.unique(data.draw(st.lists(st.integers(0, last), min_size=20, max_size=60)))
    expected = REFERENCES[name](schedule, steps.astype(Wide)).astype(np.float64)
    actual = schedule(steps)
    # The plain formulas cancel near the ends, so they are held to 1e-12 of the greatest rate there.
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * max(actual.max(), expected.max()))


def test_one_cycle_has_torch_s_default_shape():
    schedule = ms.one_cycle(1e-3, 1000)
    halfway = (1e-3 + 4e-5) / 2
    assert schedule(150) == pytest.approx(halfway) and schedule(650) == pytest.approx((1e-3 + 4e-9) / 2)
    three = ms.one_cycle(1e-3, 1000, warmup=0.4, three_phase=True, anneal="linear")
    assert three(400) == 1e-3 and three(600) == pytest.approx(halfway) and three(800) == pytest.approx(4e-5)


def test_restarts_grow_and_lose_height():
    schedule = ms.cosine_restarts(1.0, 700, cycles=3, multiplier=2.0, decay=0.5)
    assert [schedule(step) for step in (0, 100, 300, 700)] == [1.0, 0.5, 0.25, 0.0]
    assert schedule(50) == pytest.approx(0.5) and schedule(500) == pytest.approx(0.125)
    cut = ms.cosine_restarts(1.0, 250, first=100)
    assert cut(249) == pytest.approx((1 + np.cos(np.pi * 0.49)) / 2) and cut(250) == 0.0
    assert [phase[:] for phase in cut.phases][-2:] == [("cycle", 200, 250), ("end", 250, None)]


def test_tri_stage_infinite_and_wsd_cycles_by_hand():
    speech = ms.tri_stage(1.0, 1000, warmup=100, hold=400)
    assert speech(50) == pytest.approx(0.505) and speech(750) == pytest.approx(0.05**0.5)
    endless = ms.infinite(1.0, 1000, warmup=100, cooldown=300, constant=0.4, anneal=200, end=0.1)
    assert endless(250) == pytest.approx(0.7) and endless(900) == pytest.approx(0.2)
    cycles = ms.wsd_cycles(1.0, 1000, cycles=4, decay=0.4, shape="linear")
    assert [cycles(step) for step in (0, 149, 250, 400, 1000)] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert cycles(200) == pytest.approx(0.5) and cycles(950) == pytest.approx(0.5)
