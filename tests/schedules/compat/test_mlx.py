"""MLX's five names give MLX's values bit for bit, and every schedule works where MLX wants one."""

from __future__ import annotations

import inspect
import json
import pickle

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.tuner.utils import build_schedule

import mlxsched as ms
from mlxsched.platform.machine import keeps_compiled
from mlxsched.schedules.catalog import MODULES

NAMES = ["exponential_decay", "step_decay", "cosine_decay", "linear_schedule", "join_schedules"]
rates = st.floats(-1, 1)
factors = st.floats(0.01, 1.5)
lengths = st.integers(1, 10**5) | st.floats(1, 10**5)  # MLX takes fractions too
ARGUMENTS = {
    "exponential_decay": st.tuples(rates, factors),
    "step_decay": st.tuples(rates, factors, lengths),
    "cosine_decay": st.tuples(rates, lengths, rates),
    "linear_schedule": st.tuples(rates, rates, lengths),
}
OPTIMIZERS = [
    one
    for one in vars(optim).values()
    if inspect.isclass(one) and issubclass(one, optim.Optimizer)
    and one not in (optim.Optimizer, optim.MultiOptimizer)
]  # fmt: skip
EXAMPLES = [
    name for module, group in MODULES.items() for name in group
    if module not in ("controllers", "scaling", "compat.primitives")
]  # fmt: skip


def example(name: str) -> ms.Schedule:
    return ms.parse(ms.schedules.entry(name).spec)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_mlx_s(name):
    ours, theirs = inspect.signature(getattr(ms, name)), inspect.signature(getattr(optim, name))
    assert [(p.name, p.default) for p in ours.parameters.values()] == [
        (p.name, p.default) for p in theirs.parameters.values()
    ]


def assert_same_bits(ours, theirs, steps):
    for dtype in (mx.uint64, mx.uint32, mx.int64, mx.float32):
        vector = mx.array(steps, dtype)
        np.testing.assert_array_equal(np.array(ours(vector)), np.array(theirs(vector)))
    for step in steps[:10]:
        scalar = mx.array(step, mx.uint64)
        np.testing.assert_array_equal(np.array(ours(scalar)), np.array(theirs(scalar)))


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@given(data=st.data())
@settings(max_examples=40)
def test_values_are_mlx_s_bit_for_bit(name, data):
    arguments = data.draw(ARGUMENTS[name])
    steps = data.draw(st.lists(st.integers(0, 10**5), min_size=3, max_size=30))
    assert_same_bits(getattr(ms, name)(*arguments), getattr(optim, name)(*arguments), steps)


@given(data=st.data())
@settings(max_examples=25)
def test_joined_values_are_mlx_s_bit_for_bit(data):
    kinds = data.draw(st.lists(st.sampled_from(sorted(ARGUMENTS)), min_size=1, max_size=4))
    arguments = [data.draw(ARGUMENTS[kind]) for kind in kinds]
    mark = st.integers(0, 10**4) | st.floats(0, 10**4)
    marks = sorted(data.draw(st.lists(mark, min_size=len(kinds) - 1, max_size=len(kinds) - 1)))
    ours = ms.join_schedules([getattr(ms, k)(*a) for k, a in zip(kinds, arguments, strict=True)], marks)
    mixed = ms.join_schedules([getattr(optim, k)(*a) for k, a in zip(kinds, arguments, strict=True)], marks)
    theirs = optim.join_schedules(
        [getattr(optim, k)(*a) for k, a in zip(kinds, arguments, strict=True)], marks
    )
    near = [int(mark) + side for mark in marks for side in (-1, 0, 1)]
    steps = [*(max(step, 0) for step in near), 0, 7, 10**5]
    # From MLX's own step types: where it subtracts a boundary it may wrap around, and then does not choose it.
    assert_same_bits(ours, theirs, steps)
    assert_same_bits(mixed, theirs, steps)


def test_python_steps_get_the_exact_value_of_the_formula():
    assert ms.linear_schedule(1e-4, 0.0, 1000)(1000) == 0.0
    assert optim.linear_schedule(1e-4, 0.0, 1000)(mx.array(1000)).item() < 0  # the reason for `linear`
    assert ms.linear(1e-4, 1000)(mx.array(1000)).item() == 0.0
    assert ms.cosine_decay(1.0, 10**5)(10**5 - 1) == pytest.approx((np.pi / 2e5) ** 2, rel=1e-9)


DROP_INS = {
    "exponential_decay": (0.1, 0.9),
    "step_decay": (0.1, 0.9, 10.5),
    "cosine_decay": (0.1, 10.5),
    "linear_schedule": (0.0, 0.1, 7.25),
}


@pytest.mark.parametrize("name", sorted(DROP_INS))
def test_int_steps_give_a_float_that_has_item_and_fractions_are_lengths(name):
    ours, theirs = getattr(ms, name)(*DROP_INS[name]), getattr(optim, name)(*DROP_INS[name])
    for step in range(25):
        rate = ours(step)
        assert isinstance(rate, float) and type(rate.item()) is float and rate.item() == rate
        assert rate == pytest.approx(float(theirs(mx.array(step))), rel=1e-5, abs=1e-8)
        assert ours(np.array([step]))[0] == pytest.approx(rate, rel=1e-12, abs=1e-18)
    assert repr(ours(3)) == repr(float(ours(3))) == json.dumps(ours(3))
    assert pickle.loads(pickle.dumps(ours(3))) == ours(3)  # noqa: S301
    assert ms.parse(repr(ours)) == ours and ms.from_dict(ours.to_dict()) == ours


def test_joined_and_mlx_lm_schedules_have_item_too():
    joined = ms.join_schedules([ms.linear_schedule(0.0, 0.1, 10), ms.constant(0.1)], [10])
    block = ms.from_mlx_lm({"name": "cosine_decay", "arguments": [1e-5, 10.5], "warmup": 2.5})
    plain = ms.from_mlx_lm({"name": "step_decay", "arguments": [1e-5, 0.9, 10]})
    for schedule in (joined, block, plain):
        assert [schedule(step).item() for step in range(20)] == [schedule(step) for step in range(20)]
    theirs = build_schedule({"name": "cosine_decay", "arguments": [1e-5, 10.5], "warmup": 2.5})
    for step in range(20):
        at = mx.array(step, mx.uint64)
        assert mx.array_equal(block(at), theirs(at))


@pytest.mark.parametrize("wrong", [0, 0.5, -3.5, float("nan"), float("inf"), "10", True])
def test_lengths_below_one_are_refused(wrong):
    for make in (lambda: ms.cosine_decay(0.1, wrong), lambda: ms.step_decay(0.1, 0.9, wrong)):
        with pytest.raises(ms.ScheduleError):
            make()


def test_a_fraction_as_boundary_needs_parts_that_know_fractions():
    with pytest.raises(ms.ScheduleError, match="whole numbers before warmup_cosine"):
        ms.join_schedules([ms.constant(0.1), ms.warmup_cosine(0.1, 10)], [2.5])
    joined = ms.join_schedules([ms.constant(0.1), lambda step: step * 1.0], [2.5])
    assert [joined(step) for step in (2, 3, 4)] == [0.1, 0.5, 1.5]


def run(optimizer, updates: int, evaluate: bool = True) -> tuple[list[float], int]:
    """The rates of the updates of a compiled step with the state captured, and how often it was traced."""
    parameters, traces = {"w": mx.ones((3, 3))}, []
    optimizer.init(parameters)

    def step(parameters, gradient):
        traces.append(1)
        return optimizer.apply_gradients({"w": parameters["w"] * gradient}, parameters)

    compiled = mx.compile(step, inputs=optimizer.state, outputs=optimizer.state)
    seen = []
    for _ in range(updates):
        parameters = compiled(parameters, mx.array(0.1))
        if evaluate:
            mx.eval(parameters, optimizer.state)
            seen.append(optimizer.learning_rate.item())
    return seen, len(traces)


def made(kind, schedule):
    return kind(learning_rate=schedule, **({"relative_step": False} if kind is optim.Adafactor else {}))


@pytest.mark.skipif(not keeps_compiled(), reason="MLX traces at every call here, whatever the schedule")
@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_every_schedule_is_traced_once_by_every_optimizer(name, kind):
    assert run(made(kind, example(name)), 3, evaluate=False) == ([], 1)


@pytest.mark.parametrize("name", ["warmup_cosine", "wsd", "join_schedules"])
def test_a_compiled_training_follows_the_schedule(name):
    schedule = example(name)
    seen, traces = run(optim.AdamW(learning_rate=schedule), 12)
    assert traces == 1
    assert seen == pytest.approx([schedule(step) for step in range(12)], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_compiled_equals_eager(name):
    schedule = example(name)
    compiled, last = mx.compile(schedule), schedule.steps or 1000
    steps = sorted({0, 1, *range(0, last + 50, max(last // 50, 1)), last - 1, last, last + 1})
    vector = mx.array(steps, mx.uint64)
    np.testing.assert_allclose(np.array(compiled(vector)), np.array(schedule(vector)), rtol=3e-7, atol=0)
    np.testing.assert_allclose(
        [compiled(mx.array(step, mx.uint64)).item() for step in steps[:20]],
        [schedule(step) for step in steps[:20]],
        rtol=1e-6 if name not in NAMES else 1e-4,
    )


# One of each way to compute: side by side, chained, by division, looked up, by powers, around another schedule.
ONE_OF_EACH = [
    "wsd",
    "one_cycle",
    "infinite",
    "wsd_cycles",
    "jagged",
    "table",
    "exponential",
    "repeat",
    "product",
]


def test_schedules_compiled_together_equal_eager_ones():
    # Few, in one function: on a machine without their kernels in its cache MLX calls a C++ compiler for each.
    schedules = [example(name) for name in ONE_OF_EACH]
    many_points = ms.piecewise(list(range(0, 1000, 100)), [0.0, 1.0] * 5)
    schedules += [many_points, ms.parse("restarts(peak=1e-3, first=10, multiplier=1.5)")]
    compiled = mx.compile(lambda step: mx.stack([schedule(step) for schedule in schedules]))
    for step in (0, 1, 7, 50, 449, 450, 851, 999, 1000, 10**6):
        together = np.array(compiled(mx.array(step, mx.uint64)))
        np.testing.assert_allclose(together, [schedule(step) for schedule in schedules], rtol=1e-6)


def two_groups(fast, slow) -> tuple[dict[str, mx.array], int]:
    """Five updates of 1 with MultiOptimizer, parameter "b" at the first rate; parameters and number of traces."""
    groups = [optim.SGD(learning_rate=fast), optim.SGD(learning_rate=slow)]
    optimizer = optim.MultiOptimizer(groups, [lambda path, _: path.endswith("b")])
    parameters, traces = {"a": mx.ones(2), "b": mx.ones(2)}, []
    optimizer.init(parameters)

    def step(parameters):
        traces.append(1)
        return optimizer.apply_gradients({"a": mx.ones(2), "b": mx.ones(2)}, parameters)

    compiled = mx.compile(step, inputs=optimizer.state, outputs=optimizer.state)
    for _ in range(5):
        parameters = compiled(parameters)
        mx.eval(parameters, optimizer.state)
    return parameters, len(traces)


def test_two_groups_with_a_schedule_each_in_a_multi_optimizer():
    slow = ms.warmup_linear(1e-3, 100, warmup=10)
    parameters, traces = two_groups(ms.scale(slow, 16), slow)
    # MLX merges the groups in the order of a set: with some hash seeds it traces twice, with fixed rates too.
    assert traces == two_groups(1e-3, 1e-4)[1]
    moved = sum(slow(step) for step in range(5))
    assert 1 - parameters["a"][0].item() == pytest.approx(moved, rel=1e-3)
    assert 1 - parameters["b"][0].item() == pytest.approx(16 * moved, rel=1e-3)


def test_users_functions_are_accepted_wherever_a_schedule_is():
    own = lambda step: 1e-3 * mx.exp(-0.01 * step)  # noqa: E731
    whole = ms.with_warmup(ms.cooldown(ms.clamp(ms.scale(own, 2.0), low=1e-4), 50, 50), 10)
    assert whole(10) == pytest.approx(2e-3) and whole(110) == 0.0
    assert whole(np.array([10, 35])).dtype == np.float64
    seen, traces = run(optim.SGD(learning_rate=whole), 4)
    assert traces == 1 and seen == pytest.approx([0.0, 2e-4, 4e-4, 6e-4], rel=1e-6)
    with pytest.raises(ms.ScheduleError, match="function of your own cannot be saved"):
        whole.to_dict()
    fixed = ms.join_schedules([lambda step: 1e-3, own], [5])  # a plain float is fine too
    assert fixed(mx.array(2)).item() == np.float32(1e-3)
