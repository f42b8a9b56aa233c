"""A schedule for a run: what a spec leaves out is filled in from the run's peak, steps, warmup and end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Part, Schedule
from mlxsched.schedules.checks import Span
from mlxsched.schedules.forms import from_dict, read
from mlxsched.schedules.registry import entry

FAMILIES = {"linear": "warmup_linear", "cosine": "warmup_cosine", "constant": "warmup_constant"}
"""What the app's short names stand for."""


def for_run(
    spec: str | Mapping[str, Any] | Part, *, peak: float, steps: int, warmup: Span = 0, end: float = 0.0
) -> Part:
    """The schedule that a run asks for.

    Args:
        spec: a name (``"linear"``), a string form (``"wsd(decay=0.1)"``), a dictionary form, both with any of the
            arguments left out, or a schedule or a function of the step, which comes back as it is.
        peak: fills in a missing `peak` (or `init`, in schedules that have no peak).
        steps: fills in missing `steps` or `decay_steps`.
        warmup: fills in a missing `warmup`; 0 leaves the schedule's own default. Schedules without a warmup get
            one in front, within `steps`.
        end: fills in a missing `end`.

    Raises:
        ScheduleError: the spec cannot be read or its arguments don't fit.

    >>> for_run("linear", peak=2e-4, steps=1000, warmup=0.1)
    warmup_linear(peak=0.0002, steps=1000, warmup=0.1, end=0.0)
    >>> for_run("wsd(decay=0.1)", peak=2e-4, steps=1000)(900)
    0.0002
    """
    if isinstance(spec, str):
        given = read(spec)
    elif isinstance(spec, Mapping):
        given = dict(spec)
    elif callable(spec):
        return spec
    else:
        raise ScheduleError(
            f"a schedule is a name, a spec, a dictionary or a function; got {spec!r}. Name one."
        )
    return _filled(given, {"peak": peak, "steps": steps, "warmup": warmup, "end": end})


def _filled(given: dict[str, Any], run: dict[str, Any]) -> Schedule:
    name = _family(given)
    parameters = {one.name: one for one in entry(name).parameters}
    needed = [one.name for one in parameters.values() if one.default is one.empty]
    wanted = {"peak": run["peak"], "steps": run["steps"], "decay_steps": run["steps"], "end": run["end"]}
    if run["warmup"]:
        wanted["warmup"] = run["warmup"]
    if "peak" not in parameters and "init" in needed:
        wanted["init"] = run["peak"]
    filled = {key: value for key, value in wanted.items() if key in parameters and key not in given}
    return from_dict({**given, **filled, "name": name})


def _family(given: dict[str, Any]) -> str:
    """The registered name: a short name means the app's family when the family has the arguments given."""
    name = given.get("name")
    if name not in FAMILIES:
        return str(name)
    family = FAMILIES[name]
    accepted = {one.name for one in entry(family).parameters}
    return family if given.keys() - {"name"} <= accepted else name
