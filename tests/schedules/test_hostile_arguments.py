"""Whatever the arguments, a schedule is made or refused with a ScheduleError, and no step makes it fail."""

from __future__ import annotations

import inspect
import math
import random

import mlx.core as mx
import numpy as np
import pytest

import mlxsched as ms
from mlxsched.schedules.registry import alias_names, entry, names

NESTED: list[object] = []
for _ in range(100_000):
    NESTED = [NESTED]
NUMBERS = [0, 1, -1, 2.5, 0.0, 1e-300, 1e300, -1e300, 10**20, 10**400, math.nan, math.inf, True]
THINGS = [
    "1e-7",
    "much",
    "",
    None,
    [],
    [1e-3],
    [[1, 2]],
    {},
    {"name": "constant"},
    NESTED,
    object(),
    b"1",
    1j,
]
HUGE = [2**31, 2**53, 2**63, 2**64, 10**30, 10**400]


def arguments_of(name: str) -> dict[str, object]:
    """The arguments of a name's example."""
    from mlxsched.render.describe import example_spec
    from mlxsched.schedules.serialization import read

    if name == "optax.sgdr_schedule":  # takes mappings, which a spec cannot hold
        return {
            "cosine_kwargs": [{"init_value": 0.0, "peak_value": 1e-3, "warmup_steps": 5, "decay_steps": 50}]
            * 2
        }
    given = read(example_spec(entry(name)))
    return {key: value for key, value in given.items() if key != "name"}


def try_it(make) -> ms.Schedule | None:
    try:
        return make()
    except ms.ScheduleError as error:
        assert 0 < len(str(error)) < 1500
        return None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy says when 1e300 overflows
@pytest.mark.parametrize("name", [*names(), *alias_names()])
def test_every_argument_is_refused_or_understood(name: str) -> None:
    given, draw = arguments_of(name), random.Random(name)
    parameters = list(inspect.signature(entry(name).factory).parameters)
    for parameter in parameters:
        for value in [*NUMBERS, *THINGS]:
            made = try_it(
                lambda key=parameter, value=value: ms.from_dict({"name": name, **given, key: value})
            )
            if made is not None and not isinstance(value, list):
                mx.eval(made(mx.array([0, 5])), made(mx.array(3, mx.uint64)))
                assert made(np.array([0, 5, 2**40])).shape == (3,)
                assert ms.parse(repr(made)) == made and made.phases[-1].end is None
                for step in (0, 1, 1000, 10**400):
                    assert isinstance(try_it(lambda made=made, step=step: made(step)) or 0.0, float)
    for _ in range(40):  # several at once
        wrong = {key: draw.choice([*NUMBERS, *THINGS]) for key in parameters if draw.random() < 0.5}
        try_it(lambda wrong=wrong: ms.from_dict({"name": name, **given, **wrong}))


@pytest.mark.parametrize("name", [*names(), *alias_names()])
def test_steps_of_any_size_give_the_rate_of_a_late_step(name: str) -> None:
    schedule = ms.from_dict({"name": name, **arguments_of(name)})
    late = schedule(2**52)
    for step in HUGE:
        rate = schedule(step)
        assert math.isfinite(rate) and 0 <= rate <= 1.0
        if schedule.steps is not None:
            assert rate == late
    if schedule.steps is not None:
        last = [2**63 - 1, 2**63, 2**64 - 1]
        np.testing.assert_allclose(schedule(np.array(last, np.uint64)), late, rtol=1e-14)
        np.testing.assert_allclose(schedule(np.array([1e30])), late, rtol=1e-14)
        np.testing.assert_allclose(schedule(np.array([10**400, 3], object))[:1], late, rtol=1e-14)
        assert schedule(mx.array(1e30)).item() == pytest.approx(late, rel=1e-6, abs=1e-30)


def test_a_decay_is_0_and_not_infinite_after_10_to_the_400_steps() -> None:
    for spec in ("exponential(1e-3, 0.9)", "exponential_decay(1e-3, 0.9)", "step_decay(1e-3, 0.9, 10)",
                 "inverse_time(1e-3, 1.0)", "cyclic(0.0, 1e-3, 5, mode='exp_range', gamma=0.9)"):  # fmt: skip
        assert ms.parse(spec)(10**400) == pytest.approx(0.0, abs=1e-300)
    assert ms.exponential(0.0, 1.1)(10**400) == 0.0
    assert ms.repeat(ms.linear(1e-3, 4), period=4)(10**400 + 1) == ms.linear(1e-3, 4)(1)


@pytest.mark.parametrize("array", [[math.nan], [math.inf], ["1"], [1j], [None]])
def test_arrays_that_hold_no_steps_are_refused(array: list[object]) -> None:
    with pytest.raises(ms.ScheduleError, match="step"):
        ms.constant(1e-3)(np.array(array))


@pytest.mark.parametrize("wrong", [None, [], "wsd", 5, NESTED, {}, {"name": None}, {"name": ["wsd"]},
                                   {"name": "table", "values": NESTED}, {"name": "wsd", 5: 1}])  # fmt: skip
def test_what_is_no_dictionary_form_is_refused(wrong: object) -> None:
    with pytest.raises(ms.ScheduleError):
        ms.from_dict(wrong)


@pytest.mark.parametrize("wrong", [None, [], "cosine_decay", 5, {}, {"name": []}, {"name": "cosine_decay", "arguments": NESTED},
                                   {"name": "cosine_decay", "arguments": [NESTED, 5]},
                                   {"name": "cosine_decay", "arguments": [1e-5, 0]},
                                   {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": "many"}])  # fmt: skip
def test_what_is_no_mlx_lm_block_is_refused(wrong: object) -> None:
    with pytest.raises(ms.ScheduleError):
        ms.from_mlx_lm(wrong)


@pytest.mark.parametrize("wrong", [None, 5, b"wsd", NESTED, {}])
def test_what_is_no_string_form_is_refused(wrong: object) -> None:
    with pytest.raises(ms.ScheduleError):
        ms.parse(wrong)


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 0}},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 0}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": "steep"}},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": [1]},
        {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {1: 2}},
        {"lr_scheduler_type": NESTED},
        {"lr_scheduler_type": "linear", "learning_rate": NESTED},
        {"lr_scheduler_type": "greedy", "learning_rate": 0},
    ],
)
def test_from_hf_refuses_what_has_no_meaning(arguments: dict[str, object]) -> None:
    with pytest.raises(ms.ScheduleError):
        ms.from_hf(**{"learning_rate": 2e-4, "num_training_steps": 100, **arguments})


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    kwargs = {"lr_end": "1e-7", "power": "1.0E+0"}
    read = ms.from_hf("polynomial", "2e-4", 100, warmup_steps="1e1", lr_scheduler_kwargs=kwargs)
    assert read == ms.from_hf("polynomial", 2e-4, 100, warmup_steps=10, lr_scheduler_kwargs={"lr_end": 1e-7})
    block = {
        "name": "cosine_decay",
        "arguments": ["1e-5", "1e3", "1e-6"],
        "warmup": 10,
        "warmup_init": "1e-7",
    }
    numbers = {**block, "arguments": [1e-5, 1000, 1e-6], "warmup_init": 1e-7}
    assert ms.from_mlx_lm(block) == ms.from_mlx_lm(numbers)
    assert ms.from_dict({"name": "table", "values": ["1e-3", "2.5e-4"]}) == ms.table([1e-3, 2.5e-4])
    assert ms.from_dict(
        {"name": "hf.polynomial", "learning_rate": "2e-4", "num_training_steps": 9, "lr_end": "1e-7"}
    )
    with pytest.raises(ms.ScheduleError, match="without quotes"):
        ms.warmup_linear("1e-4", 100)  # in code, text is a mistake


def test_endless_cycles_are_found_without_laying_them_out() -> None:
    slow = ms.restarts(1e-3, 100, 1.0000001)
    assert slow(0) == 1e-3 and slow(100) == 1e-3 and 0 < slow(10**12) <= 1e-3
    many = ms.parse("fastai.fit_sgdr(99999, 1, 1e-3)")
    few = ms.parse("fastai.fit_sgdr(12, 1, 1e-3)")
    assert [many(step) for step in range(4095)] == [few(step) for step in range(4095)]
    assert many.steps is None and few.steps == 4095 and few(4095) == 0.0
    for spec in ("timm.cosine(1e-3, 10, cycle_mul=1.5, cycle_limit=99999)", "timm.tanh(1e-3, 10, cycle_limit=10**9)"
                 .replace("10**9", "1000000000"), "fastai.fit_sgdr(1000000000, 1, 1e-3, cycle_mult=1)"):  # fmt: skip
        assert ms.parse(spec)(5) > 0


DEEP: object = "constant"
for _ in range(100_000):
    DEEP = {"name": "scale", "schedule": DEEP, "factor": 1.0}


@pytest.mark.parametrize("wrong", [None, 5, [], NESTED, DEEP, {}, {"name": None}, {"name": []}, {"name": NESTED},
                                   {"name": "wsd", "decay": NESTED}, {"name": "scale", "schedule": NESTED},
                                   {"name": "repeat", "schedule": "linear", "period": "long"},
                                   {"name": "repeat", "schedule": "linear", "period": 10**400},
                                   {"name": "with_warmup", "schedule": "linear", "warmup": 0.5},
                                   {"name": "with_warmup", "schedule": "linear", "warmup": 1000},
                                   {"name": "cooldown", "schedule": "constant", "start": NESTED}])  # fmt: skip
def test_a_run_refuses_what_is_no_schedule(wrong: object) -> None:
    with pytest.raises(ms.ScheduleError) as caught:
        ms.for_run(wrong, peak=2e-4, steps=100, warmup=10)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "wrong",
    [
        {"peak": "high"},
        {"steps": 0},
        {"steps": 10**400},
        {"warmup": "long"},
        {"warmup": 1.5},
        {"end": NESTED},
    ],
)
@pytest.mark.parametrize("spec", ["linear", "with_warmup(schedule=rex())", "cosine_restarts", "constant"])
def test_a_run_of_wrong_numbers_is_refused(spec: str, wrong: dict[str, object]) -> None:
    with pytest.raises(ms.ScheduleError):
        ms.for_run(spec, **{"peak": 2e-4, "steps": 100, "warmup": 10} | wrong)


def test_a_composition_of_any_depth_is_refused_and_not_recursed_into() -> None:
    with pytest.raises(ms.ScheduleError, match="nested"):
        ms.from_dict(DEEP)
