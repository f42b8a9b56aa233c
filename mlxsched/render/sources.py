"""What a word on the command line of ``mlxsched plot`` stands for: a schedule, or a run.

The word is looked up in this order:

1. a name with a bracket behind it is a spec, ``wsd(peak=2e-4, steps=1000)``
2. the name of a schedule, ``cosine``
3. the name of a preset, ``laptop``
4. a path: a directory is a run; a file is YAML and holds a schedule in dictionary form, mlx-lm's ``lr_schedule``
   block, or the configuration of a run, ours or mlx-lm's

A file with the name of a schedule must therefore be written as a path, ``./cosine``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlxsched.errors import DataError, ScheduleError, UsageError
from mlxsched.render.curves import DEFAULT_STEPS
from mlxsched.render.describe import example, example_spec
from mlxsched.runs.directory import runs_near
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.defaults import FAMILIES, for_run, has_own_warmup
from mlxsched.schedules.registry import alias_names, entry, names
from mlxsched.schedules.serialization import parse
from mlxsched.text import closest, counted, number

if TYPE_CHECKING:
    from mlxsched.config.schema import RunConfig

DEFAULT_PEAK = 2e-4
DEFAULT_WARMUP = 0.1
_SPEC = re.compile(r"\s*[\w.]+\s*\(")


@dataclass(frozen=True)
class Shape:
    """What the flags say about a schedule; None if a flag was not given."""

    peak: float | None = None
    steps: int | None = None
    warmup: int | float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Planned:
    """A schedule, the number of updates to draw, and what was assumed."""

    name: str
    schedule: Schedule
    steps: int
    note: str = ""


@dataclass(frozen=True)
class Recorded:
    """The directory of a run."""

    name: str
    directory: Path


def find_source(text: str, shape: Shape) -> Planned | Recorded:
    """What ``text`` stands for. Raises UsageError for an unknown word, with the nearest known one."""
    if _SPEC.match(text):
        return _planned(text, _spec(text, shape), shape)
    if text in _schedule_names():
        return _family(text, shape)
    if "/" not in text and text in _preset_names():  # their import takes longer than drawing a run
        return _configured(text, shape, preset=text)
    path = Path(text)
    if path.is_dir():
        return Recorded(text, path)
    if path.is_file():
        return _yaml(text, path, shape)
    raise UsageError(_unknown(text))


def _schedule_names() -> list[str]:
    return [*FAMILIES, *names(), *alias_names()]


def _planned(name: str, schedule: Any, shape: Shape, steps: int | None = None, note: str = "") -> Planned:
    """Draw as far as the flag says, else the source, else the schedule itself."""
    return Planned(name, schedule, shape.steps or steps or schedule.steps or DEFAULT_STEPS, note)


def _spec(spec: str | Mapping[str, Any], shape: Shape) -> Any:
    """A complete spec is used as it is; arguments that it leaves out come from the flags and defaults."""
    if isinstance(spec, str) and shape.warmup is None and shape.end is None:
        try:
            return parse(spec)
        except ScheduleError:
            pass  # perhaps an argument is missing; for_run reports whatever else is wrong
    return for_run(
        spec,
        peak=DEFAULT_PEAK if shape.peak is None else shape.peak,
        steps=shape.steps or DEFAULT_STEPS,
        warmup=shape.warmup or 0,
        end=shape.end or 0.0,
    )


def _family(name: str, shape: Shape) -> Planned:
    """A schedule by its name; the note lists what was assumed."""
    peak = DEFAULT_PEAK if shape.peak is None else shape.peak
    own = shape.warmup is None and has_own_warmup(name)
    warmup = (0 if own else DEFAULT_WARMUP) if shape.warmup is None else shape.warmup
    steps = shape.steps or DEFAULT_STEPS
    try:
        schedule = for_run(name, peak=peak, steps=steps, warmup=warmup, end=shape.end or 0.0)
    except ScheduleError:  # it needs more than a run's flags say
        shown = example(entry(name)) if shape == Shape() else None
        if shown is None:
            raise
        return Planned(
            name, shown.schedule, shown.steps, f"drawn from its example, {example_spec(entry(name))}"
        )
    said = {"--peak": shape.peak, "--steps": shape.steps, "--warmup": shape.warmup}
    values = {"--peak": peak, "--steps": steps, "--warmup": warmup}
    assumed = ", ".join(
        f"{flag} {number(values[flag])}"
        for flag, value in said.items()
        if value is None and not (own and flag == "--warmup")
    )
    return _planned(name, schedule, shape, steps, f"assumed {assumed}" if assumed else "")


def _preset_names() -> set[str]:
    from mlxsched.config.presets import preset_names

    return set(preset_names())


def _yaml(name: str, path: Path, shape: Shape) -> Planned:
    """A YAML file: a schedule's dictionary form, mlx-lm's block, or a run's configuration."""
    from mlxsched.config.yaml_file import read_yaml

    values = read_yaml(path).values
    if not holds_schedule(values):
        return _configured(name, shape, file=path)
    if "arguments" in values:
        return _planned(name, _from_mlx_lm(values), shape)
    return _planned(name, _spec(values, shape), shape)


def holds_schedule(values: Mapping[str, Any]) -> bool:
    """Whether the values of a YAML file are those of a schedule, and not of a run's configuration."""
    from mlxsched.config.schema import RunConfig

    of_a_run = set(values) & (set(RunConfig.model_fields) - {"name", "warmup"})
    return "name" in values and (values["name"] in _schedule_names() or not of_a_run)


def _configured(name: str, shape: Shape, *, preset: str | None = None, file: Path | None = None) -> Planned:
    """The schedule that ``mlxsched train`` would use with a preset or a configuration file."""
    from mlxsched.config.load import load_config
    from mlxsched.planning.schedule import resolve_schedule

    said = {"learning_rate": shape.peak, "warmup": shape.warmup, "end_lr": shape.end}
    flags = {key: value for key, value in said.items() if value is not None}
    loaded = load_config(preset=preset, file=file, flags=flags)
    updates, assumed = (shape.steps, []) if shape.steps else run_length(loaded.config)
    resolved = resolve_schedule(loaded.config, loaded.origins, updates or DEFAULT_STEPS)
    schedule = cast(Schedule, resolved.schedule)  # a configuration cannot hold a user's own function
    known = [*assumed, *(str(finding) for finding in resolved.findings)]
    return Planned(name, schedule, updates or schedule.steps or DEFAULT_STEPS, "; ".join(known))


def run_length(config: RunConfig) -> tuple[int | None, list[str]]:
    """Updates of the run, if they are known without loading a model, and what was assumed."""
    from mlxsched.planning.length import plan_length

    if config.epochs is None:
        return plan_length(config, config.batch_size * config.grad_accumulation_steps).updates, []
    rows = _training_rows(config)
    if not rows:
        return None, [f"its length depends on the data; drawn over {DEFAULT_STEPS} updates (--steps)"]
    updates = plan_length(config, rows).updates
    return updates, [f"{counted(updates, 'update')} on the {counted(rows, 'row')} of {config.data} (--steps)"]


def _training_rows(config: RunConfig) -> int | None:
    """Training rows of local data, counted without a tokenizer; None if there are none, or not here."""
    from mlxsched.data.options import DataOptions, Features
    from mlxsched.data.sources.hub import HubSource
    from mlxsched.data.sources.open import open_source

    features = Features(
        config.text_feature, config.chat_feature, config.prompt_feature, config.completion_feature
    )
    try:
        source = open_source(
            config.hf_dataset or config.data, DataOptions(seed=config.seed, features=features)
        )
        if isinstance(source, HubSource):  # a picture is no reason to download
            return None
        return sum(record.split == "train" and record.is_json for record in source.records())
    except DataError:
        return None


def _from_mlx_lm(block: Mapping[str, Any]) -> Schedule:
    from mlxsched.schedules import from_mlx_lm

    schedule: Schedule = from_mlx_lm(dict(block))
    return schedule


def _unknown(text: str) -> str:
    places = {run.name: str(run) for run in runs_near(Path(text))}
    near = closest(Path(text).name, [*_schedule_names(), *_preset_names(), *places])
    hint = f" Did you mean {places.get(near, near)!r}?" if near is not None else ""
    return (
        f"{text!r} is neither a schedule, a preset, a run's directory nor a YAML file.{hint} "
        "`mlxsched schedules` and `mlxsched presets` list the names."
    )
