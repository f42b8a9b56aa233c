"""The fix of each finding about a schedule: a spec, or the lines of a config file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from mlxsched.analysis.schedule_health import (
    LONG_WARMUP,
    LOW,
    Curve,
    RunFacts,
    ScheduleFinding,
    is_healthy,
    schedule_health,
)
from mlxsched.errors import ScheduleError
from mlxsched.schedules import Schedule, warmup_cosine, warmup_linear
from mlxsched.text import number

WARMUP = 0.05  # share of the run, where the schedule's own warmup does not suit
_WARMUPS = {"no_warmup", "warmup_too_long", "never_peaks"}
_RATES = {"rate_too_high", "rate_too_low"}


@dataclass(frozen=True)
class Target:
    """A healthy schedule that keeps what is healthy of another one."""

    family: str
    peak: float
    warmup: int
    updates: int

    def schedule(self) -> Schedule:
        """The schedule itself."""
        made = warmup_cosine if self.family == "cosine" else warmup_linear
        return made(self.peak, self.updates, self.warmup)

    def block(self) -> dict[str, Any]:
        """The same as mlx-lm's ``lr_schedule``, whose decay begins one update after the warmup."""
        steps = max(self.updates - self.warmup - 1, 1)
        if self.family == "cosine":
            return {"name": "cosine_decay", "warmup": self.warmup, "arguments": [self.peak, steps]}
        return {"name": "linear_schedule", "warmup": self.warmup, "arguments": [self.peak, 0.0, steps]}


def target_of(schedule: Schedule, facts: RunFacts) -> Target:
    """The peak, the warmup and the family to aim for."""
    curve = Curve(schedule, facts)
    low, _, high = facts.peaks
    ratio = max(facts.lora_plus_ratio, 1.0)
    peak = curve.never_peaks or curve.peak
    if not low <= peak * ratio <= high:
        peak = facts.peaks.start(ratio)
    suits = facts.updates / 500 < curve.warmup <= LONG_WARMUP * facts.updates
    warmup = curve.warmup if suits else max(1, round(WARMUP * facts.updates))
    family = "cosine" if "cosine" in repr(schedule) else "linear"
    return Target(family, float(f"{peak:.6g}"), min(warmup, facts.updates - 1), facts.updates)


def repaired(schedule: Schedule, facts: RunFacts) -> Schedule:
    """A healthy schedule for the run: the same one with other arguments if that suffices, else its `Target`."""
    target = target_of(schedule, facts)
    known = {field.name for field in fields(schedule)}
    wanted = {"peak": target.peak, "steps": target.updates, "warmup": target.warmup}
    try:
        same = schedule.replace(**{key: value for key, value in wanted.items() if key in known})
    except ScheduleError:  # other arguments, such as a number of cycles, do not fit a run of this length
        return target.schedule()
    return same if is_healthy(schedule_health(same, facts)) else target.schedule()


def changes(code: str, target: Target, facts: RunFacts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a run's config that fix one finding, with their new values.

    Args:
        code: of the finding.
        target: the schedule to aim for.
        facts: of the run.
        settings: the present values of the config.
    """
    if code == "zero_updates":
        return {"iters": facts.accumulation}
    if code == "adam_early_excess":
        return {} if facts.corrected_here else {"bias_correction": True}
    if facts.block is not None:
        return {"lr_schedule": target.block()}
    if _is_complete(settings.get("schedule")):  # its own arguments take precedence over the other keys
        return {"learning_rate": target.peak, "schedule": target.family, "warmup": target.warmup}
    if code in _RATES:
        return {"learning_rate": target.peak}
    wanted: dict[str, Any] = {"warmup": target.warmup}
    if code not in _WARMUPS:
        wanted = {"schedule": target.family}
        if (settings.get("end_lr") or 0) > LOW * target.peak:
            wanted["end_lr"] = 0.0
    elif settings.get("warmup_init"):
        wanted["warmup_init"] = 0.0
    return wanted


def _is_complete(spec: object) -> bool:
    return isinstance(spec, Mapping) or (isinstance(spec, str) and "(" in spec)


def as_yaml(wanted: Mapping[str, Any]) -> str:
    """Lines of YAML; mappings stay on one line.

    >>> print(as_yaml({"warmup": 50, "lr_schedule": {"name": "cosine_decay", "arguments": [1e-5, 100]}}))
    warmup: 50
    lr_schedule: {"name": "cosine_decay", "arguments": [1e-05, 100]}
    """
    return "\n".join(f"{key}: {_value(value)}" for key, value in wanted.items())


def _value(value: object) -> str:
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, str) else json.dumps(value)


def with_fixes(
    findings: Sequence[ScheduleFinding],
    schedule: Schedule,
    facts: RunFacts,
    settings: Mapping[str, Any] | None = None,
) -> list[ScheduleFinding]:
    """The findings, each problem with its fix: a spec, or lines of YAML if ``settings`` of a config are given."""
    problems = [one for one in findings if one.severity != "note"]
    if not problems:
        return list(findings)
    if settings is None:
        spec = repr(repaired(schedule, facts))
        return [replace(one, fix=spec) if one in problems else one for one in findings]
    target = target_of(schedule, facts)
    return [
        replace(one, fix=as_yaml(changes(one.code, target, facts, settings))) if one in problems else one
        for one in findings
    ]


def all_changes(
    findings: Sequence[ScheduleFinding], schedule: Schedule, facts: RunFacts, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """What fixes all problems of a config together."""
    target = target_of(schedule, facts)
    together: dict[str, Any] = {}
    for one in findings:
        if one.severity != "note":
            together |= changes(one.code, target, facts, settings)
    return together
