"""The string and dictionary forms, what they refuse, arguments, the registry and what a run fills in."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mlxsched as ms
from mlxsched.schedules.catalog import MODULES, public_names
from mlxsched.schedules.defaults import has_own_warmup
from mlxsched.schedules.serialization import MAX_LENGTH

OURS = [name for module, group in MODULES.items() for name in group if not module.startswith("compat.")]


@pytest.mark.parametrize("name", OURS)
def test_each_entry_says_all_about_its_schedule(name):
    entry = ms.schedules.entry(name)
    assert entry.summary.endswith(".") and entry.formula and entry.when and entry.source
    assert entry.spec.startswith(f"{name}(")
    made = ms.parse(entry.spec)
    assert ms.parse(repr(made)) == made
    assert made.extrema(max(made.steps or 0, 1000)).high > 0


def test_string_forms_take_positions_and_nesting():
    text = "join_schedules([linear_schedule(0, 1e-1, 10), cosine_decay(1e-1, 200)], [10])"
    assert ms.parse(text) == ms.join_schedules(
        [ms.linear_schedule(0, 0.1, 10), ms.cosine_decay(0.1, 200)], [10]
    )
    assert ms.parse(' wsd ( 2e-4 , 1_000 , warmup = .05, shape = "linear" , ) ').warmup_steps == 50
    assert ms.parse("clamp(constant(1.), 0, None)") == ms.clamp(ms.constant(1.0))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "(",
        "5",
        "'wsd'",
        "constant(2e-4",
        "constant(2e-4))",
        "constant(2e-4) constant(1)",
        "constant(peak=2e-4, peak=1)",
        "constant(1, 2)",
        "constant(peak=nan)",
        "constant(peak=inf)",
        "constant(peak=1e999)",
        "constant(peak=1+1)",
        "constant(peak=2**9)",
        "constant(peak=[x for x in (1,)])",
        "constant(peak={})",
        "constant(peak=mx.array(1))",
        "constant.__class__(1)",
        "constant(peak=1).__class__",
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "eval('1')",
        "exec(1)",
        "parse(1)",
        "Schedule()",
        "lambda: 1",
        "os.system('true')",
        "constant(peak=f'{1}')",
        "constant(peak='\\x41')",
        "scale(schedule=unknown(1), factor=1)",
        "scale(schedule=5, factor=1)",
        "scale(" * 100,
        "table([" + "[" * 100,
        "table([" + "1," * MAX_LENGTH + "])",
        "constant(" + "9" * 5000 + ")",
        "a" * 10_000,
    ],
)
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ms.ScheduleError) as caught:
        ms.parse(text)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: ms.warmup_linear(-1, 100), ["`peak`", "-1"]),
        (lambda: ms.warmup_linear(float("nan"), 100), ["`peak`", "nan"]),
        (lambda: ms.warmup_linear("1e-4", 100), ["`peak`", "'1e-4'", "1.0e-5"]),
        (lambda: ms.warmup_linear(1, 0), ["`steps`", "at least 1", "0"]),
        (lambda: ms.warmup_linear(1, 10.5), ["`steps`", "10.5"]),
        (lambda: ms.warmup_linear(1, True), ["`steps`", "True"]),
        (lambda: ms.warmup_linear(1, 600, 600), ["`warmup` must be below `steps`; got 600 and 600", "raise"]),
        (lambda: ms.warmup_linear(1, 600, 1.0), ["`warmup`", "ratio below 1", "1.0"]),
        (lambda: ms.warmup_linear(1, 600, -1), ["`warmup`", "-1"]),
        (lambda: ms.wsd(1, 100, 50, decay=51), ["`warmup + decay`", "50 + 51", "100"]),
        (lambda: ms.wsd(1, 100, shape="1-sqr"), ["`shape`", "Did you mean '1-sqrt'"]),
        (lambda: ms.wsd(1, 100, shape="geometric"), ["`end`", "above 0"]),
        (lambda: ms.cosine_decay(1, 0), ["`decay_steps`"]),
        (lambda: ms.join_schedules([], []), ["`boundaries`"]),
        (lambda: ms.join_schedules([ms.constant(1)] * 3, [5, 2]), ["`boundaries` must ascend"]),
        (lambda: ms.scale(0.5, 2), ["`schedule`", "0.5"]),
        (lambda: ms.cosine_restarts(1, 100, cycles=2, first=3), ["`first`", "3"]),
        (lambda: ms.cosine_restarts(1, 100, cycles=101), ["`cycles`", "101"]),
        (lambda: ms.chebyshev(1, 2, period=3), ["`period`", "3"]),
        (lambda: ms.table([]), ["`values`"]),
        (lambda: ms.table([1, -2]), ["`values`", "-2"]),
        (lambda: ms.piecewise([0, 5], [1.0]), ["`values`", "1 and 2"]),
        (lambda: ms.piecewise([5, 0], [1.0, 2.0]), ["`boundaries`", "[5, 0]"]),
        (lambda: ms.constant(1).replace(peek=2), ["`peek`", "peak"]),
        (lambda: ms.constant(1).extrema(), ["`steps`", "None"]),
        (lambda: ms.parse("warmup_cosin(1, 2)"), ["Did you mean 'warmup_cosine'"]),
        (lambda: ms.parse("wsd(peek=1, steps=2)"), ["`peek`", "Did you mean 'peak'"]),
        (lambda: ms.from_dict({"peak": 1}), ["`name`", "peak"]),
        (lambda: ms.from_dict({"name": "wsd", "peak": 1}), ["`steps`"]),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_the_cure(make, parts):
    with pytest.raises(ms.ScheduleError) as caught:
        make()
    assert isinstance(caught.value, ValueError) and caught.value.exit_code == 2
    for part in parts:
        assert part in str(caught.value)
    assert str(caught.value).rstrip()[-1] in ".?"


@pytest.mark.parametrize(
    ("warmup", "steps", "updates"),
    [
        (0.1, 1000, 100),
        (0.07, 100, 7),
        (0.03, 1000, 30),
        (0.001, 10, 1),
        (0.999, 10, 9),
        (0.0, 5, 0),
        (0.5, 1, 0),
    ],
)
def test_a_ratio_is_rounded_up_but_leaves_an_update(warmup, steps, updates):
    assert ms.warmup_linear(1.0, steps, warmup=warmup).warmup_steps == updates


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


def test_public_names_can_all_be_imported():
    for name in public_names():
        assert getattr(ms, name) is getattr(ms.schedules, name)
        assert name in dir(ms) and name in ms.__all__
    with pytest.raises(AttributeError, match="nosuch"):
        _ = ms.nosuch


def test_the_import_is_light():
    code = "import sys, mlxsched; print(*[m for m in sys.modules if '.' not in m])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"numpy", "pydantic", "transformers", "mlx_lm", "matplotlib", "click", "yaml"} & set(loaded)
