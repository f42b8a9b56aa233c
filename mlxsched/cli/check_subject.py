"""What a word on the command line of ``mlxsched check`` stands for: a schedule, or the configuration of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlxsched.analysis.schedule_health import RunFacts, ScheduleFinding
from mlxsched.errors import UsageError
from mlxsched.render.curves import DEFAULT_STEPS
from mlxsched.schedules.base import Schedule
from mlxsched.text import number

if TYPE_CHECKING:
    from mlxsched.config.load import LoadedConfig
    from mlxsched.config.schema import RunConfig

NOTES = ("first_update_wasted", "warmup_shortened", "without_effect", "end_above_peak")
"""Findings of the resolver that `schedule_health` does not make itself."""


@dataclass(frozen=True)
class Subject:
    """A schedule with the facts of its run.

    ``settings`` and ``text`` are the values and the YAML of a configuration; None and empty for a schedule alone.
    ``reasoned``: whether it is a preset. Its file gives the reasons for its choices, so notes would repeat them.
    """

    name: str
    schedule: Schedule
    facts: RunFacts
    settings: Mapping[str, Any] | None = None
    text: str = ""
    findings: tuple[ScheduleFinding, ...] = ()
    assumed: tuple[str, ...] = field(default=())
    reasoned: bool = False


def find_subject(text: str, steps: int | None, optimizer: str) -> Subject:
    """What ``text`` stands for, over ``steps`` updates if given.

    A preset comes before a schedule of the same name, such as ``wsd``: it says more about the run.
    """
    path = Path(text)
    if "(" in text and not path.is_file():
        return _schedule(
            text, steps, optimizer
        )  # before the presets, whose import takes longer than the check
    if path.is_file():
        if path.suffix.lower() == ".json":
            return _imported(text, path, steps)
        if _is_config(path):
            return _file(text, path, steps)
    elif _is_preset(text):
        return _preset(text, steps)
    return _schedule(text, steps, optimizer)


def _is_preset(name: str) -> bool:
    from mlxsched.config.presets import preset_names

    return name in preset_names()


def _schedule(text: str, steps: int | None, optimizer: str) -> Subject:
    from mlxsched.render.sources import Recorded, Shape, find_source

    source = find_source(text, Shape(steps=steps))
    if isinstance(source, Recorded):
        raise UsageError(f"{text} is the directory of a run. `check` takes a spec, a preset or a config.")
    updates = steps or natural_length(source.schedule)
    facts = RunFacts(updates, optimizer)
    return Subject(text, source.schedule, facts, assumed=(source.note,) if source.note else ())


def natural_length(schedule: Schedule) -> int:
    """The updates over which a schedule is judged if nothing says how long the run is.

    One without an end runs to the start of its last phase if it is at 0 there, else for ten times as long, so that
    its warmup is a tenth.
    """
    if schedule.steps:
        return schedule.steps
    last = schedule.phases[-1].start
    if last and schedule(last) <= 1e-3 * schedule.extrema(last).high:
        return last
    return max(DEFAULT_STEPS, 10 * last)


def _is_config(path: Path) -> bool:
    from mlxsched.config.yaml_file import read_yaml
    from mlxsched.render.sources import holds_schedule

    return not holds_schedule(read_yaml(path).values)


def _preset(name: str, steps: int | None) -> Subject:
    from mlxsched.config.load import load_config

    found = _configured(name, load_config(preset=name), f"preset: {name}\n", steps)
    return replace(found, reasoned=True)


def _file(name: str, path: Path, steps: int | None) -> Subject:
    from mlxsched.config.load import load_config

    return _configured(name, load_config(file=path), path.read_text(encoding="utf-8-sig"), steps)


def _imported(name: str, path: Path, steps: int | None) -> Subject:
    """A JSON file of another trainer, such as a dump of TrainingArguments."""
    from mlxsched.config.importers import import_config
    from mlxsched.config.load import LoadedConfig, load_config
    from mlxsched.config.schema import RunConfig

    result = import_config([path])
    origins = load_config().origins | {entry.key: entry.origin for entry in result.entries}
    return _configured(name, LoadedConfig(RunConfig(**result.values), origins), result.to_yaml(), steps)


def _configured(name: str, loaded: LoadedConfig, text: str, steps: int | None) -> Subject:
    from mlxsched.planning.schedule import resolve_schedule
    from mlxsched.render.sources import run_length

    config = loaded.config
    length, assumed = (steps, []) if steps else run_length(config)
    updates = length or DEFAULT_STEPS
    # The resolver refuses a warmup that does not fit. Over a longer run it shows what is wrong with this one.
    horizon = max(updates, int(config.warmup) + 1) if _own_warmup(loaded) else updates
    resolved = resolve_schedule(config, loaded.origins, horizon)
    known = [
        ScheduleFinding(one.code, one.severity, one.evidence, one.where, one.why, one.fix)
        for one in resolved.findings
        if one.code in NOTES
    ]
    return Subject(
        name,
        cast(Schedule, resolved.schedule),  # a configuration cannot hold a user's own function
        _facts(loaded, updates),
        config.to_dict(),
        text,
        (*known, *_batch_scaling(loaded)),
        tuple(assumed),
    )


def _own_warmup(loaded: LoadedConfig) -> bool:
    from mlxsched.config.origins import DEFAULT, is_inherited

    return not is_inherited(loaded.origins.get("warmup", DEFAULT)) and loaded.config.lr_schedule is None


def _facts(loaded: LoadedConfig, updates: int) -> RunFacts:
    config = loaded.config
    block = config.lr_schedule
    corrected_here = block is not None and loaded.origins.get("bias_correction") == "default"
    return RunFacts(
        updates,
        config.optimizer,
        config.fine_tune_type,
        1.0 if config.fine_tune_type == "full" else config.lora_plus_ratio,
        config.grad_accumulation_steps,
        config.iters,
        _betas(config) if corrected_here or not config.bias_correction else None,
        corrected_here,
        cast("Mapping[str, Any] | None", block),
    )


def _betas(config: RunConfig) -> tuple[float, float] | None:
    arguments = config.optimizer_arguments
    if config.optimizer not in ("adam", "adamw") or arguments.get("bias_correction"):
        return None
    first, second = arguments.get("betas") or (0.9, 0.999)
    return float(first), float(second)


def _batch_scaling(loaded: LoadedConfig) -> Iterator[ScheduleFinding]:
    """The rate of a preset, where the batch is another one than the preset's."""
    from mlxsched.config.load import load_config
    from mlxsched.config.origins import PRESET
    from mlxsched.schedules.scaling import scale_peak

    config, origin = loaded.config, loaded.origins.get("learning_rate", "")
    if not origin.startswith(PRESET):
        return
    reference, rows = _rows(load_config(preset=origin.removeprefix(PRESET)).config), _rows(config)
    if rows == reference:
        return
    rule, name = ("linear", "linear") if config.optimizer == "sgd" else ("sqrt", "square-root")
    peak = scale_peak(config.learning_rate, rows, reference, rule)
    yield ScheduleFinding(
        "batch_scaling",
        "note",
        f"the rate of {origin}, {number(config.learning_rate)}, is for {reference} rows per update, and this run has "
        f"{rows}: the {name} rule gives {number(peak)}",
        why="The rule is linear for SGD and the square root for Adam; it holds for moderate batches",
        fix=f"learning_rate: {number(peak)}",
    )


def _rows(config: RunConfig) -> int:
    return config.batch_size * config.grad_accumulation_steps
