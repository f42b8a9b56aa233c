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
