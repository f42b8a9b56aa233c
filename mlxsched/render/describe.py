"""What is shown of a registered schedule besides its registry entry: arguments, other names, an example in numbers."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

from mlxsched.render.alias_examples import alias_spec
from mlxsched.render.curves import DEFAULT_STEPS
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.defaults import FAMILIES
from mlxsched.schedules.registry import ScheduleInfo, alias_names, docstrings, entry, names
from mlxsched.schedules.serialization import parse
from mlxsched.text import number

_ARGS = re.compile(r"^Args:\n((?:[ ]+.*\n?|\n)*)", re.MULTILINE)
_ARGUMENT = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", re.MULTILINE)


@dataclass(frozen=True)
class Argument:
    """One argument: ``default`` is text, empty if the argument is required."""

    name: str
    default: str
    text: str


@dataclass(frozen=True)
class ExampleCurve:
    """The schedule of an entry's spec, and how many updates of it to draw."""

    schedule: Schedule
    steps: int

    def values(self, points: int) -> list[float]:
        """The rates of ``points`` evenly spaced updates, the first and the last included."""
        return [self.schedule(self.steps * index // (points - 1)) for index in range(points)]


def find_entry(name: str) -> ScheduleInfo:
    """The entry of a registered name, or of the schedule that a short name stands for.

    Raises ScheduleError for an unknown name, with the nearest one.

    >>> find_entry("cosine").name in ("cosine", "warmup_cosine")
    True
    """
    return entry(name if name in (*names(), *alias_names()) else FAMILIES.get(name, name))


def example(known: ScheduleInfo) -> ExampleCurve | None:
    """The entry's own example, or the one for another library's name; None if there is none.

    One of ours without an end is drawn up to four times the start of its last phase.
    """
    spec = example_spec(known)
    if not spec:
        return None
    schedule = parse(spec)
    if not known.spec:
        return ExampleCurve(schedule, max(schedule.steps or 0, DEFAULT_STEPS))
    last = schedule.phases[-1]
    endless = last.start if last.name == "end" else 4 * last.start
    return ExampleCurve(schedule, schedule.steps or endless or DEFAULT_STEPS)


def example_spec(known: ScheduleInfo) -> str:
    """The text of the example; empty if there is none."""
    return known.spec or alias_spec(known.name)


def arguments(known: ScheduleInfo) -> list[Argument]:
    """The arguments in order, with their defaults and descriptions."""
    block = _ARGS.search(known.doc)
    found = _ARGUMENT.findall(block[1] if block else "")
    texts = {name: " ".join(text.split()) for group, text in found for name in group.split(", ")}
    return [Argument(one.name, _default(one.default), texts.get(one.name, "")) for one in known.parameters]


def heading(known: ScheduleInfo) -> str:
    """The group of a schedule: the first words of its module's docstring.

    >>> heading(entry("wsd"))
    'Shapes that hold the peak for a while before they decay'
    """
    text = docstrings(known.group)[""] or known.group
    words = re.split(r"(?<!\.)[:;.](?:\s|$)|\n", text, maxsplit=1)[0]
    return words.replace("``", "")


def other_names(name: str) -> list[str]:
    """The short names that stand for a registered schedule.

    >>> other_names("warmup_linear")
    ['linear']
    """
    return [short for short, target in FAMILIES.items() if target == name]


def stands_for(name: str) -> str:
    """The schedule that a run uses for a name: another one for a few short names.

    >>> stands_for("linear"), stands_for("wsd")
    ('warmup_linear', 'wsd')
    """
    return FAMILIES.get(name, name)


def _default(value: object) -> str:
    if value is inspect.Parameter.empty:
        return ""
    return number(value) if isinstance(value, float) else repr(value)
