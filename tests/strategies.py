"""Random valid schedules for hypothesis, one strategy a family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

import mlxsched as ms
from mlxsched.schedules.curves import TAILS, WARMUPS

peaks = st.floats(-7, 1).map(lambda power: 10.0**power)
lengths = st.one_of(st.integers(2, 50), st.integers(2, 20_000), st.integers(2, 10**9))
shares = st.floats(0.01, 0.45)


@st.composite
def ends(draw: st.DrawFn, peak: float) -> float:
    """0 half of the time, else a share of the peak."""
    return draw(st.one_of(st.just(0.0), st.floats(1e-4, 0.9).map(lambda share: share * peak)))


@st.composite
def spans(draw: st.DrawFn, steps: int, most: float = 0.45) -> int | float:
    """A length of at most `most` of the steps, as updates or as a ratio (which is rounded up)."""
    longest = int(steps * most)
    return draw(st.one_of(st.just(0), st.floats(0.0, longest / steps), st.integers(0, longest)))


def _whole(name: str, **extra: Callable[[st.DrawFn, float, int], Any]) -> st.SearchStrategy[ms.Schedule]:
    """Schedules with peak, steps and warmup, and what else `extra` draws from the peak and the steps."""

    @st.composite
    def build(draw: st.DrawFn) -> ms.Schedule:
        peak, steps = draw(peaks), draw(lengths)
        arguments = {key: make(draw, peak, steps) for key, make in extra.items()}
        return ms.schedules.entry(name).factory(peak, steps, warmup=draw(spans(steps)), **arguments)

    return build()


def _end(draw: st.DrawFn, peak: float, steps: int) -> float:
    return draw(ends(peak))


def _span(draw: st.DrawFn, peak: float, steps: int) -> int | float:
    return draw(spans(steps))


def _decay(name: str, **extra: st.SearchStrategy[Any]) -> st.SearchStrategy[ms.Schedule]:
    """Single curves: down to an end, or up from 0."""

    @st.composite
    def build(draw: st.DrawFn) -> ms.Schedule:
        peak = draw(peaks)
        init, end = draw(st.one_of(st.tuples(st.just(peak), ends(peak)), st.just((0.0, peak))))
        arguments = {key: draw(strategy) for key, strategy in extra.items()}
        if init == 0:
            arguments.pop("k", None)  # k-decay is a way down
        return ms.schedules.entry(name).factory(init, draw(lengths), end, **arguments)

    return build()


@st.composite
def wsds(draw: st.DrawFn) -> ms.Schedule:
    peak, steps, shape = draw(peaks), draw(lengths), draw(st.sampled_from(sorted(TAILS)))
    end = draw(ends(peak)) or (peak / 1000 if shape == "geometric" else 0.0)
    return ms.wsd(
        peak,
        steps,
        warmup=draw(spans(steps)),
        decay=draw(spans(steps)),
        end=end,
        shape=shape,
        warmup_shape=draw(st.sampled_from(sorted(WARMUPS))),
    )


@st.composite
def one_cycles(draw: st.DrawFn) -> ms.Schedule:
    steps = draw(lengths) + 20  # three phases need room
    return ms.one_cycle(
        draw(peaks),
        steps,
        warmup=draw(spans(steps)),
        div=draw(st.floats(1, 100)),
        final_div=draw(st.floats(1, 1e5)),
        anneal=draw(st.sampled_from(["cosine", "linear"])),
        three_phase=draw(st.booleans()),
    )


@st.composite
def restarts(draw: st.DrawFn) -> ms.Schedule:
    peak, steps = draw(peaks), draw(st.integers(100, 10**7))
    counted = draw(st.booleans())
    return ms.cosine_restarts(
        peak,
        steps,
        warmup=draw(spans(steps)),
        cycles=draw(st.integers(1, 6)) if counted else None,
        first=None if counted else draw(st.integers(steps // 20, steps)),
        multiplier=draw(st.floats(1, 2)),
        decay=draw(st.floats(0.3, 1)),
        end=draw(ends(peak)),
    )


@st.composite
def pieces(draw: st.DrawFn) -> ms.Schedule:
    marks = sorted(draw(st.lists(st.integers(0, 10**8), min_size=1, max_size=12, unique=True)))
    values = draw(st.lists(st.one_of(st.just(0.0), peaks), min_size=len(marks), max_size=len(marks)))
    return ms.piecewise(marks, values, draw(st.sampled_from(["linear", "cosine", "constant"])))


@st.composite
def cyclics(draw: st.DrawFn) -> ms.Schedule:
    high = draw(peaks)
    return ms.cyclic(
        draw(ends(high)),
        high,
        up=draw(st.integers(1, 10**6)),
        down=draw(st.one_of(st.none(), st.integers(1, 10**6))),
        mode=draw(st.sampled_from(["triangular", "triangular2", "exp_range"])),
        gamma=draw(st.floats(0.99, 1.0)),
    )


@st.composite
def jags(draw: st.DrawFn) -> ms.Schedule:
    peak, steps = draw(peaks), draw(st.integers(100, 10**7))
    every = draw(st.integers(steps // 10, steps))
    warmup, rewarm = draw(st.integers(0, steps // 10)), draw(st.integers(0, every))
    return ms.jagged(peak, steps, warmup, every=every, rewarm=rewarm, end=draw(ends(peak)))


@st.composite
def infinites(draw: st.DrawFn) -> ms.Schedule:
    peak, steps = draw(peaks), draw(lengths)
    part = spans(steps, 0.33)
    return ms.infinite(peak, steps, warmup=draw(part), cooldown=draw(part), anneal=draw(part))


FAMILIES: dict[str, st.SearchStrategy[ms.Schedule]] = {
    "constant": peaks.map(ms.constant),
    "warmup_constant": st.builds(ms.warmup_constant, peaks, lengths),
    "warmup_linear": _whole("warmup_linear", end=_end),
    "warmup_cosine": _whole("warmup_cosine", end=_end),
    "budgeted": st.builds(ms.budgeted, peaks, lengths),
    "wsd": wsds(),
    "trapezoid": _whole("trapezoid", decay=_span, end=_end),
    "knee": _whole("knee", hold=_span),
    "flat_cosine": _whole("flat_cosine", flat=lambda draw, peak, steps: draw(st.floats(0.5, 0.9)), end=_end),
    "tri_stage": _whole(
        "tri_stage", hold=_span, final_scale=lambda draw, peak, steps: draw(st.floats(1e-3, 1))
    ),
    "infinite": infinites(),
    "wsd_cycles": _whole(
        "wsd_cycles",
        cycles=lambda draw, peak, steps: draw(st.integers(1, max(1, min(7, steps // 2)))),
        decay=lambda draw, peak, steps: draw(st.floats(0.01, 1)),
        end=_end,
    ),
    "one_cycle": one_cycles(),
    "cosine_restarts": restarts(),
    "cyclic": cyclics(),
    "jagged": jags(),
    "chebyshev": st.builds(
        lambda low, ratio, power: ms.chebyshev(low, low * ratio, 2**power),
        peaks,
        st.floats(1, 100),
        st.integers(0, 7),
    ),
    "linear": _decay("linear"),
    "cosine": _decay("cosine", exponent=st.one_of(st.just(1.0), st.floats(0.5, 3))),
    "polynomial": _decay("polynomial", power=st.floats(0.3, 4), k=st.one_of(st.just(1.0), st.floats(0.5, 5))),
    "log_sweep": st.builds(
        lambda init, ratio, steps: ms.log_sweep(init, init * ratio, steps),
        peaks,
        st.floats(1e-4, 1e4),
        lengths,
    ),
    "one_minus_sqrt": _decay("one_minus_sqrt"),
    "rex": _decay("rex", beta=st.floats(0, 0.95)),
    "tanh": _decay("tanh", lower=st.floats(-8, -1), upper=st.floats(0, 4)),
    "exponential": st.builds(ms.exponential, peaks, st.floats(0.5, 1.0, exclude_min=True)),
    "inverse_time": st.builds(
        ms.inverse_time, peaks, st.floats(0, 10), every=st.integers(1, 10**6), staircase=st.booleans()
    ),
    "inverse_sqrt": st.builds(
        ms.inverse_sqrt, peaks, st.integers(0, 10**6), timescale=st.one_of(st.none(), st.integers(1, 10**6))
    ),
    "noam": st.builds(ms.noam, st.integers(1, 8192), st.integers(1, 10**6)),
    "power_law": st.builds(ms.power_law, peaks, st.integers(1, 10**6), st.floats(-2, 0)),
    "power": st.builds(
        ms.power, peaks, st.integers(1, 4096), st.integers(1, 10**7), warmup=st.integers(0, 10**5)
    ),
    "multistep": st.builds(
        ms.multistep,
        peaks,
        st.lists(st.integers(0, 10**9), max_size=6, unique=True).map(sorted),
        st.floats(0.05, 1),
    ),
    "piecewise": pieces(),
    "table": st.builds(ms.table, st.lists(st.one_of(st.just(0.0), peaks), min_size=1, max_size=40)),
}
"""By name: every registered schedule of ours that is not made of others."""

simple = st.one_of(list(FAMILIES.values()))


def _joined(parts: list[ms.Schedule], marks: list[int]) -> ms.Schedule:
    return ms.join_schedules(parts, sorted(marks)[: len(parts) - 1])


@st.composite
def warps(draw: st.DrawFn) -> ms.Schedule:
    count = draw(st.integers(2, 6))
    updates = sorted(draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count, unique=True)))
    positions = draw(st.lists(st.floats(0, 10**6), min_size=count, max_size=count))
    return ms.warp(draw(simple), updates, positions)


COMBINED: dict[str, st.SearchStrategy[ms.Schedule]] = {
    "with_warmup": st.builds(
        ms.with_warmup, simple, st.integers(0, 10**6), shape=st.sampled_from(sorted(WARMUPS))
    ),
    "cooldown": st.builds(
        ms.cooldown,
        simple,
        st.integers(0, 10**6),
        st.integers(1, 10**6),
        shape=st.sampled_from(sorted(TAILS.keys() - {"geometric"})),
    ),
    "scale": st.builds(ms.scale, simple, st.floats(1e-3, 10)),
    "clamp": st.builds(ms.clamp, simple, st.floats(0, 1e-4), st.floats(1e-3, 10)),
    "shift": st.builds(ms.shift, simple, st.integers(-(10**6), 10**6)),
    "repeat": st.builds(ms.repeat, simple, st.integers(1, 10**6), st.one_of(st.none(), st.integers(1, 1000))),
    "product": st.builds(ms.product, st.lists(simple, min_size=1, max_size=3)),
    "warp": warps(),
    "join_schedules": st.builds(
        _joined,
        st.lists(simple, min_size=1, max_size=4),
        st.lists(st.integers(0, 10**6), min_size=3, max_size=3),
    ),
}
"""By name: the combinators, over random simple schedules."""

OURS = FAMILIES | COMBINED
"""Every name but MLX's own four formulas, which keep MLX's float32 values."""


@st.composite
def steps_of(draw: st.DrawFn, schedule: ms.Schedule, most: int = 2**32 - 1) -> list[int]:
    """Steps worth a look: both sides of every edge, the limits of float32 and uint32, and random ones."""
    edges = [edge for phase in schedule.phases[:50] for edge in (phase.start, phase.end or 0)]
    near = {edge + offset for edge in edges for offset in (-1, 0, 1)}
    last = max([*edges, 100])
    inside = draw(st.lists(st.integers(0, 2 * last), min_size=5, max_size=20))
    marks = near | {0, 1, 2**24 + 1, 2**31, 2**32 - 1} | set(inside)
    return sorted(mark for mark in marks if 0 <= mark <= most)
