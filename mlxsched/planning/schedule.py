"""The one resolver: from the settings and the length of a run to its schedule.

Every command that needs the schedule of a run asks `resolve_schedule`, so that a plan, a plot, a check and the
training itself cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from mlxsched.analysis.findings import Finding
from mlxsched.config.layers import LENGTHS
from mlxsched.config.origins import DEFAULT, from_flag, is_inherited
from mlxsched.config.views import ScheduleSettings
from mlxsched.errors import ConfigError
from mlxsched.schedules import Schedule, for_run, from_mlx_lm, shift, with_warmup
from mlxsched.schedules.controllers import Controller
from mlxsched.schedules.defaults import has_own_warmup
from mlxsched.text import counted

ScheduleLike: TypeAlias = Callable[[int], Any]
"""A `Schedule`, or a user's own function of the update index."""

DEFAULT_FAMILY = "linear"
WASTE = 0.01  # a note if a single update at rate 0 is a larger share of the run than this
PRESET_WASTE = 0.05  # the same, if the warmup comes from a preset or is the default


@dataclass(frozen=True)
class ResolvedSchedule:
    """The schedule of a run, and what there is to say about it.

    Args:
        schedule: the learning rate as a function of the update index.
        warmup: updates of warmup, 0 without one.
        peak: the exact highest rate of all updates of the run.
    """

    schedule: ScheduleLike
    warmup: int
    peak: float
    findings: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The dictionary form of the schedule; for a user's own function, its name."""
        return describe_schedule(self.schedule)


def resolve_schedule(
    config: ScheduleSettings,
    origins: Mapping[str, str],
    updates: int,
    given: ScheduleLike | None = None,
) -> ResolvedSchedule:
    """The schedule of a run of ``updates`` updates.

    Args:
        config: the settings of the learning rate.
        origins: where each setting comes from, as `LoadedConfig.origins` has it. A preset's warmup is cut to a
            tenth of a short run, while the user's own must fit.
        updates: the length of the run.
        given: a schedule or a function of the update index that takes precedence over the settings.

    Raises:
        ConfigError: the warmup is not shorter than the run, or ``until_plateau`` does not fit the schedule.
        ScheduleError: the schedule cannot be read, or its arguments do not fit.
    """
    warmup, findings = plan_warmup(config, origins, updates)
    request = _Request(
        config.schedule or DEFAULT_FAMILY,
        config.learning_rate,
        updates,
        warmup,
        config.warmup_init,
        config.end_lr,
    )
    schedule: ScheduleLike
    if given is not None:
        schedule = given
    elif config.lr_schedule is not None:
        schedule = from_mlx_lm(dict(config.lr_schedule))
        findings += _overridden(config, origins)
    else:
        request, notes = _constant_if_asked(request, config, origins)
        schedule = request.made()
        findings += notes
        findings += _without_effect(request, origins)
        findings += _end_above_peak(request, schedule)
    if config.until_plateau and not _is_constant(schedule, updates):
        raise ConfigError(
            f"until_plateau needs a rate that is constant after the warmup, up to a cooldown; got {describe_schedule(schedule)}. "
            "Use --schedule wsd or constant, or leave --until-plateau out."
        )
    peak = highest_rate(schedule, updates)
    findings += schedule_findings(schedule, updates, peak)
    own = given is not None or config.lr_schedule is not None
    waste = WASTE if own or not is_inherited(origins.get("warmup", DEFAULT)) else PRESET_WASTE
    if peak and updates * waste < 1 and float(schedule(0)) == 0:
        findings.append(_first_update(schedule, updates, peak, None if given else config))
    return ResolvedSchedule(schedule, warmup_updates(schedule), peak, tuple(findings))


@dataclass(frozen=True)
class _Request:
    """What a run asks of its schedule."""

    spec: str | dict[str, Any]
    learning_rate: float
    updates: int
    warmup: int | float
    warmup_init: float | None
    end_lr: float

    def made(self) -> ScheduleLike:
        schedule = for_run(
            self.spec, peak=self.learning_rate, steps=self.updates, warmup=self.warmup, end=self.end_lr
        )
        return schedule if self.warmup_init is None else _with_init(schedule, self.warmup_init)


def _constant_if_asked(
    request: _Request, config: ScheduleSettings, origins: Mapping[str, str]
) -> tuple[_Request, list[Finding]]:
    """``request`` with wsd in place of a default or a preset's schedule that does not hold its rate for ``until_plateau``."""
    given = not is_inherited(origins.get("schedule", DEFAULT))
    if not config.until_plateau or given or _is_constant(request.made(), request.updates):
        return request, []
    evidence = f"--until-plateau needs a constant rate: the schedule is wsd instead of {request.spec}"
    return replace(request, spec="wsd"), [Finding("constant_until_plateau", "note", evidence)]


def _is_constant(schedule: ScheduleLike, updates: int) -> bool:
    """Whether the rate is constant from the warmup to the cooldown, or to the end without one."""
    first, last = warmup_updates(schedule), (cooldown_start(schedule) or updates) - 1
    return len({float(schedule(at)) for at in (first, (first + last) // 2, last)}) == 1


def _with_init(schedule: ScheduleLike, init: float) -> ScheduleLike:
    """The same schedule from the end of its warmup on, with a line from ``init`` up to there."""
    if isinstance(schedule, Controller):  # it must stay the outermost, to be told the metric
        return schedule.replace(schedule=_with_init(schedule.schedule, init))
    warmup = warmup_updates(schedule)
    return with_warmup(shift(schedule, -warmup), warmup, init) if warmup else schedule


# Warmup


def plan_warmup(
    config: ScheduleSettings, origins: Mapping[str, str], updates: int
) -> tuple[int | float, list[Finding]]:
    """The warmup that fits a run of ``updates`` updates, and a note if it was shortened.

    A preset's or default warmup is cut to a tenth of the run; one that the user chose is kept. By default a
    family with a warmup of its own, such as one_cycle, keeps that: the result is 0.
    """
    origin = origins.get("warmup", DEFAULT)
    if origin == DEFAULT and has_own_warmup(config.schedule):
        return 0, []
    if is_inherited(origin):
        return _shortened(config.warmup, updates)
    if config.warmup >= updates:
        raise ConfigError(_warmup_too_long(config.warmup, updates, origins))
    return config.warmup, []


def _shortened(warmup: int | float, updates: int) -> tuple[int | float, list[Finding]]:
    """``warmup``, cut to a tenth of the run. A ratio fits any run and is left alone."""
    # At least one update of warmup, and one after it: a run of one update has none.
    limit = min(max(updates // 10, 1), updates - 1)
    if isinstance(warmup, float) or warmup <= limit:
        return warmup, []
    size = "a tenth of the run" if updates >= 10 else f"since the run has {counted(updates, 'update')}"
    evidence = f"warmup shortened from {warmup} to {counted(limit, 'update')}, {size}"
    return limit, [Finding("warmup_shortened", "note", evidence)]


def _warmup_too_long(warmup: int | float, updates: int, origins: Mapping[str, str]) -> str:
    origin = origins.get("warmup", DEFAULT)
    length = next((key for key in LENGTHS if origins.get(key, DEFAULT) != DEFAULT), LENGTHS[0])
    problem = (
        f"`warmup` must be below `steps`; got {warmup} and {updates}. Lower --warmup or raise --{length}."
    )
    if from_flag(origin):
        return problem
    return (
        f"{origin}: {problem} A preset's warmup is cut to a tenth of a short run; a warmup in your own file is not: "
        "write the ratio `warmup: 0.1` for that."
    )


def warmup_updates(schedule: ScheduleLike) -> int:
    """Updates of warmup at the start of a schedule; 0 without one."""
    phases = getattr(schedule, "phases", ())
    return int(phases[0].end) if phases and phases[0].name == "warmup" else 0


def cooldown_start(schedule: ScheduleLike) -> int | None:
    """The number of updates before the last decay, where something other than a warmup comes before it; else None.

    The updates up to there do not depend on the length of the run: a longer run makes the same ones.

    >>> from mlxsched.schedules import warmup_cosine, wsd
    >>> cooldown_start(wsd(1e-3, 1000, warmup=100, decay=0.2)), cooldown_start(warmup_cosine(1e-3, 1000, 100))
    (800, None)
    """
    phases = [phase for phase in getattr(schedule, "phases", ()) if phase.name != "end"]
    if len(phases) < 2 or phases[-1].name not in ("decay", "cooldown") or phases[-2].name == "warmup":
        return None
    return int(phases[-1].start)


# What the schedule is like over the run


def highest_rate(schedule: ScheduleLike, updates: int) -> float:
    """The exact highest rate of updates 0 to ``updates`` - 1.

    >>> from mlxsched.schedules import warmup_linear
    >>> highest_rate(warmup_linear(1e-3, 3000, 137), 3000)
    0.001
    """
    # A sample of the updates is not enough: 200 of 3000 miss a peak at update 137 by 0.5%.
    if isinstance(schedule, Schedule) and updates > 1:
        return schedule.extrema(updates - 1).high
    return max(float(schedule(step)) for step in range(updates))


def schedule_findings(schedule: ScheduleLike, updates: int, peak: float) -> Iterator[Finding]:
    """Warnings about what a schedule does not reach in ``updates`` updates, with the fix."""
    steps = getattr(schedule, "steps", None)
    if peak == 0:
        yield Finding(
            "zero_rate", "warning", "the learning rate is 0 in every update: nothing will be learned"
        )
    if steps is None:
        return
    last = float(schedule(updates - 1))
    steps_of_run = counted(updates, "step")
    if steps > updates:
        share = last / peak if peak else 0.0
        end = f"at {share:.0%} of its highest rate"
        if updates <= warmup_updates(schedule):
            end = f"during the warmup, at {last:.3g}"
        yield Finding(
            "never_ends",
            "warning",
            f"the schedule is made for {counted(steps, 'update')} and the run has {updates:,}: it ends {end}",
            fix=f"Give the schedule {steps_of_run}, or train longer",
        )
    elif steps < 0.9 * updates and last == 0:
        yield Finding(
            "ends_early",
            "warning",
            f"the schedule ends after {steps:,} of {counted(updates, 'update')} and the rate is 0 from there on",
            fix=f"Give the schedule {steps_of_run}, or train for less",
        )


def _first_update(
    schedule: ScheduleLike, updates: int, peak: float, config: ScheduleSettings | None
) -> Finding:
    """The note that a short run spends its first update at rate 0; ``config`` is None for a given schedule."""
    warmup, fix = warmup_updates(schedule), ""
    if warmup and config is not None:
        where = "warmup_init in lr_schedule:" if config.lr_schedule else "--warmup-init"
        fix = f"Start the warmup higher, with {where} {peak / (warmup + 1):.3g}"
    evidence = f"the first update has a learning rate of 0 and changes nothing: {1 / updates:.0%} of the run"
    return Finding("first_update_wasted", "note", evidence, fix=fix)


def _end_above_peak(request: _Request, schedule: ScheduleLike) -> Iterator[Finding]:
    if request.end_lr > request.learning_rate < float(schedule(request.updates)):
        yield Finding(
            "end_above_peak",
            "warning",
            f"end_lr {request.end_lr:g} is above the peak of {request.learning_rate:g}: the rate rises up to the "
            "end of the run",
            fix="Lower --end-lr",
        )


# What the settings do not do


def _overridden(config: ScheduleSettings, origins: Mapping[str, str]) -> Iterator[Finding]:
    """mlx-lm's block has its own rate: a learning_rate next to it has no effect, in mlx-lm or here."""
    origin = origins.get("learning_rate", DEFAULT)
    if config.lr_schedule is not None and not is_inherited(origin):
        yield Finding(
            "without_effect",
            "note",
            f"learning_rate {config.learning_rate:g} ({origin}) has no effect: lr_schedule has its own rates",
        )


def _without_effect(request: _Request, origins: Mapping[str, str]) -> Iterator[Finding]:
    """Notes on settings of the rate that were given, but that the schedule does not use."""
    # A setting is unused if another value of it gives the same schedule.
    others = {
        "learning_rate": replace(request, learning_rate=2 * request.learning_rate),
        "end_lr": replace(request, end_lr=(request.end_lr or request.learning_rate) / 2),
    }
    if request.warmup_init is not None:
        others["warmup_init"] = replace(request, warmup_init=request.warmup_init / 2 + request.learning_rate)
    if request.warmup:
        others["warmup"] = replace(request, warmup=0)
    used = describe_schedule(request.made())
    for key, other in others.items():
        origin = origins.get(key, DEFAULT)
        if is_inherited(origin):
            continue
        if describe_schedule(other.made()) == used:
            yield Finding(
                "without_effect",
                "note",
                f"{key} ({origin}) has no effect: the schedule {request.spec!r} has its own, or none",
            )


def describe_schedule(schedule: ScheduleLike) -> dict[str, Any]:
    """The dictionary form of a schedule; for a user's own function, its name."""
    to_dict = getattr(schedule, "to_dict", None)
    return dict(to_dict()) if to_dict else {"name": getattr(schedule, "__name__", type(schedule).__name__)}
