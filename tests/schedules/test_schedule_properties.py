"""What holds for every schedule, over random parameters and awkward steps."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import FAMILIES, OURS, steps_of

import mlxsched as ms

OWN = [
    name
    for module, group in ms.schedules.catalog.MODULES.items()
    for name in group
    if module not in ("controllers", "scaling") and not module.startswith("compat.")
]


def test_each_of_our_schedules_has_a_strategy():
    assert sorted(OURS) == sorted([*OWN, "join_schedules"])


def float32_of(schedule: ms.Schedule, steps: list[int], dtype: mx.Dtype) -> np.ndarray:
    result = schedule(mx.array(np.array(steps, np.uint64)).astype(dtype))
    assert result.dtype == mx.float32 and result.shape == (len(steps),)
    return np.array(result, np.float64)


def assert_close(actual: np.ndarray, exact: np.ndarray) -> None:
    """Within 1e-6 relative, down to where float32 itself runs out of digits."""
    np.testing.assert_allclose(actual, exact, rtol=1e-6, atol=1e-37)


@pytest.mark.parametrize("name", sorted(OURS))
@given(data=st.data())
def test_python_numpy_and_mlx_steps_agree(name, data):
    schedule = data.draw(OURS[name])
    steps = data.draw(steps_of(schedule))
    exact = schedule(np.array(steps, np.uint64))
    assert exact.dtype == np.float64
    np.testing.assert_allclose([schedule(step) for step in steps], exact, rtol=1e-12, atol=0)
    for dtype in (mx.uint32, mx.uint64, mx.int64):
        assert_close(float32_of(schedule, steps, dtype), exact)
    few = [step for step in steps if step < 2**24]
    assert_close(float32_of(schedule, few, mx.float32), schedule(np.array(few, np.float32)))


@pytest.mark.parametrize("name", sorted(OURS))
@given(data=st.data())
@settings(max_examples=5)
def test_a_scalar_step_gives_the_vector_s_value(name, data):
    schedule = data.draw(OURS[name])
    steps = data.draw(steps_of(schedule))[:8]
    scalars = [schedule(mx.array(step, mx.uint64)) for step in steps]
    assert all(value.shape == () and value.dtype == mx.float32 for value in scalars)
    assert_close(np.array([value.item() for value in scalars]), float32_of(schedule, steps, mx.uint64))


@pytest.mark.parametrize("name", sorted(FAMILIES))
@given(data=st.data())
def test_never_negative_and_never_outside_the_extrema(name, data):
    schedule = data.draw(FAMILIES[name])
    steps = data.draw(steps_of(schedule))
    last = max(steps[-1], 1)
    try:
        extrema = schedule.extrema(last)
    except ms.ScheduleError as error:
        assert "at most 20000000" in str(error)  # too long to look at every step
        extrema = schedule.extrema(1000)
        steps = [step for step in steps if step <= 1000]
    exact = schedule(np.array(steps, np.uint64))
    single = float32_of(schedule, steps, mx.uint64)
    assert extrema.low >= 0
    slack = 1e-15  # NumPy's and math's functions differ in the last bit
    assert (exact >= extrema.low * (1 - slack)).all() and (exact <= extrema.high * (1 + slack)).all()
    assert (single >= np.float32(extrema.low) * (1 - 2e-7)).all()
    assert (single <= np.float32(extrema.high) * (1 + 2e-7)).all()


WARMED = ["warmup_linear", "warmup_cosine", "wsd", "trapezoid", "knee", "flat_cosine", "infinite", "wsd_cycles",
          "cosine_restarts", "jagged"]  # fmt: skip


@pytest.mark.parametrize("name", WARMED)
@given(data=st.data())
def test_warmed_runs_hold_their_boundaries_exactly(name, data):
    schedule = data.draw(FAMILIES[name])
    warmup, steps, peak = schedule.warmup_steps, schedule.steps, schedule.peak
    end = schedule.sample(1)[1][-1]
    if name == "infinite":
        assume("cooldown" in [phase.name for phase in schedule.phases])
    if name not in ("infinite", "knee"):
        assert end == (schedule.end if getattr(schedule, "decay_steps", 1) else peak)
    for value in (float, np.float32):
        kind = (
            (lambda step: schedule(step))
            if value is float
            else (lambda step: schedule(mx.array(step, mx.uint64)).item())
        )
        if warmup:
            assert kind(0) == 0
        assert kind(warmup) == value(peak)
        for later in (steps, steps + 1, 2 * steps + 7):
            assert kind(later) == value(end)
    grid = sorted({step for step in data.draw(steps_of(schedule)) if step <= 10**9})
    assert (float32_of(schedule, grid, mx.uint64) <= np.float32(peak)).all()


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "polynomial", "one_minus_sqrt", "rex", "tanh", "log_sweep"]
)
@given(data=st.data())
def test_single_curves_hold_both_ends_exactly(name, data):
    schedule = data.draw(FAMILIES[name])
    for step, value in (
        (0, schedule.init),
        (schedule.steps, schedule.end),
        (schedule.steps + 99, schedule.end),
    ):
        assert schedule(step) == value
        assert schedule(mx.array(step, mx.uint64)).item() == np.float32(value)


@pytest.mark.parametrize(
    ("schedule", "last_rate"),
    [
        (lambda steps: ms.warmup_cosine(1.0, steps), lambda rest: (np.pi / 2 * rest) ** 2),
        (lambda steps: ms.warmup_linear(1.0, steps), lambda rest: rest),
        (lambda steps: ms.wsd(1.0, steps, decay=steps), lambda rest: rest / 2),
        (lambda steps: ms.wsd(1.0, steps, decay=steps, shape="1-square"), lambda rest: 2 * rest),
        (lambda steps: ms.wsd(1.0, steps, decay=steps, shape="exponential"), lambda rest: np.log(2) * rest),
        (lambda steps: ms.wsd(1.0, steps, decay=steps, shape="mirror-cosine"), lambda rest: 2 * rest),
        (lambda steps: ms.polynomial(1.0, steps, power=2.0, k=3.0), lambda rest: (3 * rest) ** 2),
        (lambda steps: ms.rex(1.0, steps), lambda rest: 2 * rest),
    ],
)
@pytest.mark.parametrize("steps", [10**7, 2**32 - 1, 10**12])
def test_the_last_update_before_the_end_keeps_its_digits(schedule, last_rate, steps):
    made, expected = schedule(steps), last_rate(1 / steps)
    assert made(steps - 1) == pytest.approx(expected, rel=1e-6)
    if steps < 2**32:
        for dtype in (mx.uint32, mx.uint64):
            assert made(mx.array(steps - 1, dtype)).item() == pytest.approx(expected, rel=1e-6)


def test_python_steps_up_to_a_trillion_are_exact():
    schedule = ms.warmup_linear(1.0, 10**12, warmup=10**9)
    assert schedule(10**9) == 1.0
    assert schedule(10**12 - 999) == pytest.approx(999 / (10**12 - 10**9), rel=1e-15)
    assert schedule(10**12) == schedule(10**15) == 0.0


def test_negative_steps_count_as_0_and_fractions_are_dropped():
    schedule = ms.warmup_linear(1.0, 100, warmup=10)
    assert schedule(-5) == 0.0 and schedule(np.array([-5])).tolist() == [0.0]
    assert schedule(mx.array(-5)).item() == 0.0
    assert schedule(5.9) == schedule(5) == schedule(np.int32(5)) == schedule(np.float64(5.5))


@pytest.mark.parametrize("step", ["5", None, [1, 2], float("nan"), float("inf"), 1j])
def test_what_is_no_step_is_refused(step):
    with pytest.raises(ms.ScheduleError, match="a step is a whole number"):
        ms.constant(1.0)(step)


@pytest.mark.parametrize("name", sorted(OURS))
@given(data=st.data())
@settings(max_examples=5)
def test_values_survive_every_form(name, data):
    schedule = data.draw(OURS[name])
    twins = [
        pickle.loads(pickle.dumps(schedule)),  # noqa: S301
        copy.deepcopy(schedule),
        schedule.replace(),
        ms.from_dict(schedule.to_dict()),
        ms.from_dict(yaml.safe_load(yaml.safe_dump(schedule.to_dict()))),
        ms.parse(repr(schedule)),
        eval(repr(schedule), vars(ms.schedules), {n: getattr(ms, n) for n in OURS}),  # noqa: S307
    ]
    for twin in twins:
        assert twin == schedule and hash(twin) == hash(schedule) and repr(twin) == repr(schedule)
        assert type(twin) is type(schedule)
    assert schedule != ms.constant(123.0) and schedule != 5


@pytest.mark.parametrize("name", sorted(OURS))
@given(data=st.data())
@settings(max_examples=5)
def test_extrema_and_table_are_those_of_every_step(name, data):
    schedule = data.draw(OURS[name])
    last = data.draw(st.integers(1, 3000))
    values = np.array(schedule.table(last))
    assert values.shape == (last + 1,)
    found = schedule.extrema(last)
    # NumPy's and math's functions may differ in the last bits.
    assert (found.low, found.high) == pytest.approx((values.min(), values.max()), rel=1e-14, abs=0)
    assert (schedule(found.low_at), schedule(found.high_at)) == pytest.approx(found[::2], rel=1e-14, abs=0)


@pytest.mark.parametrize("name", sorted(OURS))
@given(data=st.data())
@settings(max_examples=5)
def test_phases_cover_the_axis_and_steps_is_where_it_ends(name, data):
    schedule = data.draw(OURS[name])
    phases = schedule.phases
    assert phases[0].start == 0 and phases[-1].end is None
    for one, following in pairwise(phases):
        assert one.end == following.start > one.start
    if schedule.steps is not None:
        last = schedule(schedule.steps)
        after = [schedule(schedule.steps + extra) for extra in (1, 2, 1000)]
        assert after == pytest.approx(
            [last] * 3, rel=1e-13
        )  # a warp interpolates up to its end, and rounds there
