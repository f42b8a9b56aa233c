"""Every schedule that has a name, and what is known about it.

`MODULES` says where each name lives, so that only the modules that are used get imported. All else is read from
the docstring of the class or function, which has these fields, each starting a line::

    One line that says what it is.

    Formula: rate(t) = ..., with both boundaries (may go on in indented lines)
    When: when to use it.
    Source: Author & Author year (arXiv ....)
    Spec: name(argument=value, ...)     an example with sensible numbers, which `parse` reads

`entry(name)` returns them as an `Entry`: ``entry("wsd").formula``, ``.summary``, ``.when``, ``.source``, ``.spec``
(a string for `parse`), ``.group`` (the module's name) and ``.factory``. `names()` lists all names.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.catalog import ALIASES, MODULES
from mlxsched.text import did_you_mean

_FIELD = re.compile(r"^(Formula|When|Source|Spec):[ \n]+(.*(?:\n[ ]+.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Entry:
    """What is known about a named schedule."""

    name: str
    group: str
    factory: Callable[..., Schedule]
    summary: str
    formula: str
    when: str
    source: str
    spec: str

    @property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The arguments in order, with their defaults."""
        return tuple(inspect.signature(self.factory).parameters.values())


def names() -> list[str]:
    """All registered names, in the order in which they are documented."""
    return [name for group in MODULES.values() for name in group]


def alias_names() -> list[str]:
    """The names of other libraries' schedules, ``"torch.OneCycleLR"`` and so on."""
    return [f"{library}.{name}" for library, group in ALIASES.items() for name in group]


def factory(name: str) -> Callable[..., Schedule]:
    """The class or function of that name.

    Raises:
        ScheduleError: there is none; the nearest name is suggested.
    """
    made: Callable[..., Schedule] = getattr(
        importlib.import_module(f"{__package__}.{_module_of(name)}"), name.rpartition(".")[2]
    )
    return made


@cache
def entry(name: str) -> Entry:
    """What is known about a schedule.

    Raises:
        ScheduleError: no schedule has this name; the nearest one is suggested.

    >>> entry("warmup_linear").spec
    'warmup_linear(peak=2e-4, steps=1000, warmup=100)'
    """
    made = factory(name)
    text = inspect.getdoc(made) or ""
    found = {key.lower(): " ".join(value.split()) for key, value in _FIELD.findall(text)}
    facts = {key: found.get(key, "") for key in ("formula", "when", "source", "spec")}
    return Entry(name, _module_of(name), made, text.partition("\n")[0], **facts)


def _module_of(name: str) -> str:
    for module, group in MODULES.items():
        if name in group:
            return module
    library, _, alias = str(name).partition(".")
    if alias in ALIASES.get(library, ()):
        return f"compat.{library}"
    near = did_you_mean(name, names() + alias_names())
    raise ScheduleError(f"no schedule is called {str(name)[:100]!r}.{near} `mlxsched schedules` lists all.")
