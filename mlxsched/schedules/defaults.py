"""The schedule of a run: arguments that a spec leaves out are filled in from the run's peak, steps, warmup and end."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter
from typing import Any

from mlxsched.errors import ScheduleError
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.fields import (
    Duration,
    as_count,
    as_duration,
    as_rate,
    as_steps,
    below,
    duration_steps,
    rules_of,
    shown,
)
from mlxsched.schedules.parts import Part
from mlxsched.schedules.registry import entry
from mlxsched.schedules.serialization import MAX_DEPTH, from_dict, read

FAMILIES = {"linear": "warmup_linear", "cosine": "warmup_cosine", "constant": "warmup_constant"}
"""What the command line's short names stand for: the same shape over a whole run, with a warmup."""
INSIDE = {"plateau": "constant", "greedy": "constant"}
"""What the controllers scale by default: a constant rate, because they find the decay themselves."""
PEAKS = {"init", "peak", "learning_rate"}
"""The arguments that hold a schedule's highest rate."""


def for_run(
    spec: str | Mapping[str, Any] | Part, *, peak: float, steps: int, warmup: Duration = 0, end: float = 0.0
) -> Part:
    """The schedule that a run asks for.

    Args:
        spec: a name (``"linear"``), a string form (``"wsd(decay=0.1)"``) or a dictionary form, with any of the
            arguments left out; or a schedule or a function of the step, which is returned unchanged.
        peak: the highest rate; fills in a missing `peak` (or `init`, in schedules that have no peak).
        steps: updates of the run; fills in missing `steps` or `decay_steps`.
        warmup: updates, or a ratio of `steps`; fills in a missing `warmup`. 0 leaves the schedule's own default.
            A schedule without a warmup gets one in front, within `steps`.
        end: the last rate; fills in a missing `end`.

    A schedule inside another one is filled in the same way; `plateau` and `greedy` scale a constant rate by default.

    Raises:
        ScheduleError: the spec cannot be read or its arguments don't fit.

    >>> for_run("linear", peak=2e-4, steps=1000, warmup=0.1)
    warmup_linear(peak=0.0002, steps=1000, warmup=0.1, end=0.0)
    >>> for_run("wsd(decay=0.1)", peak=2e-4, steps=1000)(900)
    0.0002
    >>> for_run("plateau(patience=1)", peak=2e-4, steps=1000, warmup=100).schedule
    warmup_constant(peak=0.0002, warmup=100)
    >>> for_run("rex", peak=2e-4, steps=1000, warmup=100).phases[0]
    Phase(name='warmup', start=0, end=100)
    """
    if isinstance(spec, str):
        given = read(spec)
    elif isinstance(spec, Mapping):
        given = dict(spec)
    elif callable(spec):
        return spec
    else:
        raise ScheduleError(
            f"a schedule is a name, a spec, a dictionary or a function; got {shown(spec)}. Name one."
        )
    run = {
        "peak": as_rate("peak", peak),
        "steps": as_steps("steps", steps),
        "warmup": as_duration("warmup", warmup),
        "end": as_rate("end", end),
    }
    return _filled(given, run, 0)


def has_own_warmup(spec: object) -> bool:
    """Whether a warmup is part of a family's shape, as in `one_cycle`.

    A run whose configuration says nothing about the warmup leaves such a family its own.

    >>> has_own_warmup("one_cycle"), has_own_warmup("wsd(decay=0.1)")
    (True, False)
    """
    given = read(spec) if isinstance(spec, str) else spec
    if not isinstance(given, Mapping):
        return False
    own = {one.name: one.default for one in entry(_family(given)).parameters}.get("warmup")
    return isinstance(own, float) and own > 0


def _filled(given: Mapping[str, Any], run: Mapping[str, Any], depth: int) -> Schedule:
    if depth > MAX_DEPTH:
        raise ScheduleError(f"schedules are nested more than {MAX_DEPTH} deep. Compose fewer.")
    name = _family(given)
    parameters = {one.name: one for one in entry(name).parameters}
    if "schedule" in parameters:
        return _around(name, given, run, depth)
    updates = duration_steps(run["warmup"], as_steps("steps", run["steps"]))
    warms_up = {"warmup", "num_warmup_steps"} & parameters.keys()
    in_front = 0 if warms_up or PEAKS & given.keys() else updates
    left = run["steps"] - in_front
    wanted = {"peak": run["peak"], "learning_rate": run["peak"], "end": run["end"]}
    wanted |= dict.fromkeys(("steps", "decay_steps", "num_training_steps"), left)
    if updates:
        rule = rules_of(entry(name).factory).get("warmup")
        takes_ratio = rule is not None and rule.check is as_duration
        wanted |= {"warmup": run["warmup"] if takes_ratio else updates, "num_warmup_steps": updates}
    if "peak" not in parameters and "init" in parameters and parameters["init"].default is Parameter.empty:
        wanted["init"] = run["peak"]
    filled = {key: value for key, value in wanted.items() if key in parameters and key not in given}
    schedule = {**given, **filled, "name": name}
    if in_front and PEAKS & filled.keys():
        below("warmup", updates, "steps", run["steps"])
        schedule = {"name": "with_warmup", "schedule": schedule, "warmup": updates}
    return from_dict(schedule)


def _around(name: str, given: Mapping[str, Any], run: Mapping[str, Any], depth: int) -> Schedule:
    """A schedule around another one, which gets the part of the run that the outer one leaves."""
    given, inner_run = dict(given), dict(run)
    if name == "with_warmup":
        given.setdefault("warmup", duration_steps(run["warmup"], run["steps"]))
        inner_run |= {"steps": run["steps"] - as_count("warmup", given["warmup"]), "warmup": 0}
    elif name == "cooldown" and "start" in given:
        given = {"decay_steps": run["steps"] - as_count("start", given["start"]), "end": run["end"], **given}
    elif name == "repeat" and "period" in given:
        inner_run["steps"] = given["period"]
    inner = given.get("schedule", INSIDE.get(name))
    if isinstance(inner, str):
        inner = read(inner)
    if isinstance(inner, Mapping):
        inner = _filled(inner, inner_run, depth + 1)
    return from_dict({**given, "name": name} | ({} if inner is None else {"schedule": inner}))


def _family(given: Mapping[str, Any]) -> str:
    """The registered name; a short name means the whole-run family if that takes the given arguments."""
    if "name" not in given:
        raise ScheduleError(
            f"a schedule's dictionary needs `name`; got {shown(dict(given))}. `mlxsched schedules` lists the names."
        )
    name = given["name"]
    if not isinstance(name, str) or name not in FAMILIES:
        return entry(name).name
    family = FAMILIES[name]
    accepted = {one.name for one in entry(family).parameters}
    return family if given.keys() - {"name"} <= accepted else name
