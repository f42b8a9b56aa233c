"""Arguments are checked by their types, wherever and however a class writes its annotations."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import mlxsched as ms
from mlxsched.schedules.fields import MAX_COUNT, as_count, rules_of, shown

Importer = Callable[[str], ModuleType]
BODY = """
from collections.abc import Sequence
from dataclasses import dataclass

from mlxsched import Schedule
from mlxsched.schedules import fields
from mlxsched.schedules.fields import Count, Duration, Rate, Steps as Updates


@dataclass(frozen=True)
class mine(Schedule):
    peak: Rate
    steps: Updates = 10
    floor: fields.Rate | None = None
    hold: Duration = 0.5
    marks: Sequence[Count] = ()
    loud: bool = False
    word: str = "plain"

    def _value(self, step, ops):
        return self.peak
"""


@pytest.fixture
def module_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Import a text as a module."""

    def make(text: str) -> ModuleType:
        (tmp_path / "a_users_module.py").write_text(text)
        monkeypatch.delitem(sys.modules, "a_users_module", raising=False)
        return importlib.import_module("a_users_module")

    monkeypatch.syspath_prepend(tmp_path)
    return make


@pytest.mark.parametrize("head", ["", "from __future__ import annotations\n"], ids=["evaluated", "text"])
def test_a_users_subclass_is_checked_like_ours(module_of: Importer, head: str) -> None:
    mine = module_of(head + BODY).mine
    made = mine(2, steps=20.0, marks=np.array([1, 2]))
    assert (made.peak, made.steps, made.floor, made.marks) == (2.0, 20, None, (1, 2))
    assert type(made.peak) is float and type(made.steps) is int
    for wrong, name in [
        ({"peak": -1.0}, "peak"),
        ({"peak": "1e-4"}, "peak"),
        ({"peak": None}, "peak"),
        ({"steps": 0}, "steps"),
        ({"floor": -1.0}, "floor"),
        ({"hold": 1.5}, "hold"),
        ({"marks": [1, -1]}, "marks"),
        ({"marks": 3}, "marks"),
        ({"loud": "no"}, "loud"),
    ]:
        with pytest.raises(ms.ScheduleError, match=f"`{name}`"):
            mine(**{"peak": 1.0} | wrong)


def test_an_annotation_that_cannot_be_read_is_an_error_and_not_a_pass(module_of: Importer) -> None:
    text = BODY.replace("Count, Duration, Rate,", "Count, Duration,")
    module = module_of("from __future__ import annotations\n" + text)
    with pytest.raises(ms.ScheduleError, match="annotations of mine"):
        module.mine(1.0)


def test_a_mixture_of_rules_is_an_error_and_not_a_pass(module_of: Importer) -> None:
    module = module_of(BODY.replace("peak: Rate\n", "peak: Rate | str\n"))
    with pytest.raises(ms.ScheduleError, match="mixes"):
        module.mine(1.0)


def test_every_number_of_ours_has_a_rule() -> None:
    unruled = set()
    for name in ms.names():
        factory = ms.entry(name).factory
        for field in factory.__dataclass_fields__.values():
            if field.name not in rules_of(factory) and "Part" not in str(field.type) and field.type != "str":
                unruled.add(f"{name}.{field.name}")
    assert unruled == set()


def test_what_is_shown_of_a_value_is_short_and_never_fails() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shown(0.1) == "0.1" and shown("wsd") == "'wsd'" and shown([5, 0]) == "[5, 0]"
    for value in (nested, 10**5000, "x" * 10_000, list(range(1000)), {"a": nested}):
        assert len(shown(value)) < 200


def test_a_count_is_bounded_where_float64_stops_counting() -> None:
    assert as_count("steps", MAX_COUNT) == MAX_COUNT
    for wrong in (MAX_COUNT + 1, 10**400, 1e300):
        with pytest.raises(ms.ScheduleError, match="at most"):
            as_count("steps", wrong)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: ms.warmup_linear(-1, 100), ["`peak`", "-1"]),
        (lambda: ms.warmup_linear(float("nan"), 100), ["`peak`", "nan"]),
        (lambda: ms.warmup_linear("1e-4", 100), ["`peak`", "'1e-4'", "without quotes"]),
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
