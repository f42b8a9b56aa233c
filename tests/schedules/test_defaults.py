"""What a run fills in, for a name, a spec or a dictionary form, and inside compositions."""

from __future__ import annotations

import pytest

import mlxsched as ms
from mlxsched.schedules.defaults import has_own_warmup

RUN = {"peak": 2e-4, "steps": 1000, "warmup": 0.05, "end": 1e-5}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("linear", ms.warmup_linear(2e-4, 1000, 0.05, 1e-5)),
        ("cosine", ms.warmup_cosine(2e-4, 1000, 0.05, 1e-5)),
        ("constant", ms.warmup_constant(2e-4, 50)),
        ("cosine(warmup=7)", ms.warmup_cosine(2e-4, 1000, 7, 1e-5)),
        ("cosine(exponent=2.0)", ms.with_warmup(ms.cosine(2e-4, 950, 1e-5, exponent=2.0), 50)),
        ("wsd(decay=0.1)", ms.wsd(2e-4, 1000, 0.05, decay=0.1, end=1e-5)),
        ({"name": "wsd", "peak": 1e-3}, ms.wsd(1e-3, 1000, 0.05, end=1e-5)),
        ("inverse_sqrt", ms.inverse_sqrt(2e-4, 50)),
        ("cosine_decay", ms.with_warmup(ms.cosine_decay(2e-4, 950, 1e-5), 50)),
        ("constant(1e-3)", ms.warmup_constant(1e-3, 50)),
        ("scale(constant(1e-3), 0.5)", ms.scale(ms.warmup_constant(1e-3, 50), 0.5)),
        ("warmup_cosine(1e-3, 10)", ms.warmup_cosine(1e-3, 10, 0.05, 1e-5)),
    ],
)
def test_a_run_fills_in_what_the_spec_leaves_out(spec, expected):
    assert ms.for_run(spec, **RUN) == expected


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("plateau", "plateau(warmup_constant(2e-4, 100))"),
        ("greedy(patience=1)", "greedy(warmup_constant(2e-4, 100), patience=1)"),
        ("plateau(schedule=wsd(decay=0.5))", "plateau(wsd(2e-4, 1000, 100, decay=0.5, end=1e-6))"),
        ({"name": "scale", "schedule": "rex", "factor": 2.0},
         "scale(with_warmup(rex(2e-4, 900, 1e-6), 100), 2.0)"),
        ("with_warmup(schedule=cosine())", "with_warmup(warmup_cosine(2e-4, 900, 0, 1e-6), 100)"),
        ("with_warmup(schedule=cosine(), warmup=10)", "with_warmup(warmup_cosine(2e-4, 990, 0, 1e-6), 10)"),
        ("cooldown(schedule=constant(), start=700)",
         "cooldown(warmup_constant(2e-4, 100), start=700, decay_steps=300, end=1e-6)"),
        ("repeat(schedule=linear(), period=250)", "repeat(warmup_linear(2e-4, 250, 100, 1e-6), 250)"),
        ("hf.linear", "hf.linear(2e-4, 1000, 100)"),
    ],
)  # fmt: skip
def test_a_run_fills_in_what_is_inside_another_schedule(spec, expected):
    made = ms.for_run(spec, peak=2e-4, steps=1000, warmup=100, end=1e-6)
    assert made == ms.parse(expected)


def test_what_a_run_cannot_fill_in_is_asked_for():
    with pytest.raises(ms.ScheduleError, match="scale needs `schedule`"):
        ms.for_run("scale(factor=2.0)", **RUN)
    with pytest.raises(ms.ScheduleError, match="cooldown needs `start`"):
        ms.for_run("cooldown(schedule=constant())", **RUN)
    with pytest.raises(ms.ScheduleError, match="`start`"):
        ms.for_run("cooldown(schedule=constant(), start=-1)", **RUN)


def test_which_families_have_a_warmup_of_their_own():
    own = {name for name in ms.names() if has_own_warmup(name)}
    assert own == {"one_cycle", "tri_stage"}
    assert has_own_warmup({"name": "one_cycle"}) and not has_own_warmup(None) and not has_own_warmup(len)


def test_a_run_takes_functions_and_schedules_as_they_are():
    own = lambda step: 1e-3  # noqa: E731
    assert ms.for_run(own, **RUN) is own
    made = ms.constant(1.0)
    assert ms.for_run(made, **RUN) is made
    for wrong in (5, None, "nosuch", {"peak": 1.0}):
        with pytest.raises(ms.ScheduleError):
            ms.for_run(wrong, **RUN)
