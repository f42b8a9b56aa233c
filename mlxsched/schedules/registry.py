"""Every schedule that has a name, and what is known about it.

`catalog` says where each name lives, so that only the modules that are used get imported. Everything else is read from
the docstring of the class or function, which has these fields, each starting a line::

    One line that says what it is.

    Formula: rate(t) = ..., with both boundaries (may continue in indented lines)
    When: when to use it.
    Source: Author & Author year (arXiv ....)
    Spec: name(argument=value, ...)     an example with sensible numbers, which `parse` reads

`entry(name)` returns them as a `ScheduleInfo`: ``entry("wsd").formula``, ``.summary``, ``.when``, ``.source``, ``.spec``
(a string for `parse`), ``.group`` (the module's name) and ``.factory``. `names()` lists all names.

Docstrings are read from the source files, not from ``__doc__``, which ``python -OO`` removes.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.abc import InspectLoader

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.catalog import ALIASES, MODULES
from mlxsched.schedules.fields import shown
from mlxsched.text import did_you_mean

PACKAGE = "mlxsched.schedules"
_FIELD = re.compile(r"^(Formula|When|Source|Spec):[ \n]+(.*(?:\n[ ]+.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class ScheduleInfo:
    """What is known about a named schedule; modules are imported and docstrings read on first use."""

    name: str
    group: str

    @cached_property
    def factory(self) -> Callable[..., Schedule]:
        """The class or function that makes the schedule."""
        module = importlib.import_module(f"{PACKAGE}.{self.group}")
        factory: Callable[..., Schedule] = getattr(module, self.name.rpartition(".")[2])
        return factory

    @cached_property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The arguments in order, with their defaults."""
        return tuple(inspect.signature(self.factory).parameters.values())

    @property
    def doc(self) -> str:
        """The whole docstring."""
        return docstrings(self.group).get(self.name.rpartition(".")[2], "")

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.doc.partition("\n")[0]

    @property
    def formula(self) -> str:
        """The rate at update t, with both boundaries."""
        return self._field("Formula")

    @property
    def when(self) -> str:
        """When to use it."""
        return self._field("When")

    @property
    def source(self) -> str:
        """The paper or the library that it comes from."""
        return self._field("Source")

    @property
    def spec(self) -> str:
        """An example, as text for `parse`; empty for other libraries' names."""
        return self._field("Spec")

    def _field(self, name: str) -> str:
        return next((" ".join(text.split()) for key, text in _FIELD.findall(self.doc) if key == name), "")


def names() -> list[str]:
    """All registered names, in the order in which they are documented."""
    return [name for group in MODULES.values() for name in group]


def alias_names() -> list[str]:
    """The names of other libraries' schedules, ``"torch.OneCycleLR"`` and so on."""
    return [f"{library}.{name}" for library, group in ALIASES.items() for name in group]


def entry(name: str) -> ScheduleInfo:
    """What is known about a schedule.

    Raises:
        ScheduleError: no schedule has this name; the nearest one is suggested.

    >>> entry("warmup_linear").spec
    'warmup_linear(peak=2e-4, steps=1000, warmup=100)'
    """
    if not isinstance(name, str):
        raise ScheduleError(f"a schedule's name is text; got {shown(name)}. `mlxsched schedules` lists all.")
    return _entry(name)


@cache
def docstrings(module: str) -> Mapping[str, str]:
    """The docstrings of a module of this package by name; its own is under the empty name."""
    spec = importlib.util.find_spec(f"{PACKAGE}.{module}")
    loader = spec.loader if spec else None
    source = loader.get_source(spec.name) if spec and isinstance(loader, InspectLoader) else None
    tree = ast.parse(source or "")
    defined = [one for one in tree.body if isinstance(one, ast.ClassDef | ast.FunctionDef)]
    return {"": ast.get_docstring(tree) or ""} | {one.name: ast.get_docstring(one) or "" for one in defined}


@cache
def _entry(name: str) -> ScheduleInfo:
    for module, group in MODULES.items():
        if name in group:
            return ScheduleInfo(name, module)
    library, _, alias = name.partition(".")
    if alias in ALIASES.get(library, ()):
        return ScheduleInfo(name, f"compat.{library}")
    near = did_you_mean(name, names() + alias_names())
    raise ScheduleError(f"no schedule is called {shown(name)}.{near} `mlxsched schedules` lists all.")
