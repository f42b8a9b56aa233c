"""What the registry knows, also without docstrings in memory, and the one list of names."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlxsched as ms
from mlxsched.schedules.catalog import MODULES
from mlxsched.schedules.registry import alias_names, entry, names

STUB_SCRIPT = Path(__file__).parents[2] / "scripts" / "make_schedule_stub.py"
REPORT = """
import json
from mlxsched.schedules.catalog import MODULES
from mlxsched.schedules.registry import alias_names, entry, names
from mlxsched.render.describe import arguments, heading
facts = {}
for name in (*names(), *alias_names()):
    known = entry(name)
    texts = [one.text for one in arguments(known)]
    facts[name] = [known.summary, known.formula, known.when, known.source, known.spec, heading(known), texts]
print(json.dumps(facts))
"""


def facts(*flags: str) -> dict[str, list[object]]:
    return json.loads(subprocess.check_output([sys.executable, *flags, "-c", REPORT]))


def test_everything_is_known_under_optimization_too() -> None:
    plain, optimized = facts(), facts("-OO")
    assert plain == optimized
    assert list(plain) == [*names(), *alias_names()]
    for name in names():
        assert all(plain[name]), name
    assert all(plain[name][0] for name in alias_names())


@pytest.mark.skipif(sys.flags.optimize == 2, reason="no docstrings")
def test_what_is_read_from_the_source_is_the_docstring() -> None:
    for name in (*names(), *alias_names()):
        assert entry(name).doc == inspect.getdoc(entry(name).factory), name


def test_the_command_line_shows_a_formula_under_optimization() -> None:
    shown = subprocess.check_output(
        [sys.executable, "-OO", "-m", "mlxsched", "schedules", "show", "wsd"], text=True
    )
    assert "Formula    rate(t) = peak * t / warmup" in shown and "arXiv 2404.06395" in shown


def test_the_stub_for_type_checkers_is_the_catalog() -> None:
    subprocess.run([sys.executable, str(STUB_SCRIPT), "--check"], check=True)


@pytest.mark.parametrize("wrong", [None, 5, ["wsd"], {"name": "wsd"}, 10**400])
def test_what_is_no_name_is_refused(wrong: object) -> None:
    with pytest.raises(ms.ScheduleError, match="name"):
        entry(wrong)


OURS = [name for module, group in MODULES.items() for name in group if not module.startswith("compat.")]


@pytest.mark.parametrize("name", OURS)
def test_each_entry_says_all_about_its_schedule(name):
    known = entry(name)
    assert known.summary.endswith(".") and known.formula and known.when and known.source
    assert known.spec.startswith(f"{name}(")
    made = ms.parse(known.spec)
    assert ms.parse(repr(made)) == made
    assert made.extrema(max(made.steps or 0, 1000)).high > 0
