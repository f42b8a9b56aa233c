"""What a config file of mlx-lm does in mlx-lm, and what it does here.

The defaults are read from the installed mlx-lm, so they are those of the version that would run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlxsched.config import RunConfig, load_config
from mlxsched.config.mlx_lm import INTERVALS
from mlxsched.config.yaml_file import YamlFile, read_yaml
from mlxsched.errors import ConfigError
from mlxsched.integrations.explain_text import Difference, behaviour, describe
from mlxsched.planning.length import plan_length
from mlxsched.planning.schedule import resolve_schedule
from mlxsched.schedules import Schedule, constant, from_mlx_lm
from mlxsched.text import counted


@dataclass(frozen=True)
class Outcome:
    """What a run amounts to; None is unknown, or there is no update."""

    updates: int | None
    first_rate: float | None
    last_rate: float | None
    rows_never_seen: int | None


@dataclass(frozen=True)
class Line:
    """One key of the file: where it stands, and what it means there and here."""

    line: int
    key: str
    value: Any
    theirs: str
    ours: str


@dataclass(frozen=True)
class Explanation:
    """The run in mlx-lm and here, line by line, and what differs."""

    theirs: Outcome
    ours: Outcome
    lines: list[Line]
    differences: list[Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: mlx-lm's outcome at the top, ours under ``ours``."""
        return {
            **asdict(self.theirs),
            "ours": asdict(self.ours),
            "lines": [asdict(line) for line in self.lines],
            "differences": [asdict(difference) for difference in self.differences],
        }


@dataclass(frozen=True)
class MlxLmConfig:
    """A file of mlx-lm: its values, and with mlx-lm's defaults filled in, the settings of the run."""

    file: YamlFile
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> MlxLmConfig:
        """Read a file; raises `ConfigError` for one that mlx-lm could not use either."""
        from mlx_lm.lora import CONFIG_DEFAULTS

        file = read_yaml(path)
        given = {key: value for key, value in file.values.items() if value is not None}
        settings = {**CONFIG_DEFAULTS, **given}
        for key, least in (("iters", 0), ("batch_size", 1), ("grad_accumulation_steps", 1)):
            value = settings[key]
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(
                    f"{file.place(key)}: `{key}` must be a whole number from {least}; got {value!r}."
                )
        return cls(file, settings)

    @property
    def updates(self) -> int:
        """mlx-lm updates after every ``grad_accumulation_steps`` iterations and drops what is left at the end."""
        return int(self.settings["iters"]) // int(self.settings["grad_accumulation_steps"])

    @property
    def schedule(self) -> Schedule:
        """The rate as a function of the update; without an ``lr_schedule`` it is constant."""
        block = self.settings["lr_schedule"]
        if block is not None and not isinstance(block, dict):
            raise ConfigError(f"{self.file.place('lr_schedule')}: `lr_schedule` must be a mapping.")
        return from_mlx_lm(block) if block else constant(float(self.settings["learning_rate"]))

    def outcome(self, rows: int | None) -> Outcome:
        """What the run amounts to in mlx-lm over ``rows`` training rows."""
        updates, schedule = self.updates, self.schedule
        first, last = (float(schedule(0)), float(schedule(updates - 1))) if updates else (None, None)
        return Outcome(updates, first, last, None if rows is None else self._never_seen(rows))

    def _never_seen(self, rows: int) -> int:
        """Rows that no update learns from.

        mlx-lm makes rows // batch_size batches, the same in each epoch, and visits all of them in random order
        before it repeats one.
        """
        size = int(self.settings["batch_size"])
        used = self.updates * int(self.settings["grad_accumulation_steps"])
        return rows - min(used, rows // size) * size


def explain(path: Path, rows: int | None = None) -> Explanation:
    """Explain the config file ``path`` of mlx-lm for a training set of ``rows`` rows (None: unknown).

    Raises:
        ConfigError: the file cannot be read, or a value is wrong; with ``file:line:column``.
        ScheduleError: mlx-lm could not build the schedule either.
    """
    config = MlxLmConfig.read(path)
    ours, origins = our_config(config.file)
    theirs_outcome, ours_outcome = config.outcome(rows), _our_outcome(ours, origins, rows)
    lines = []
    for key, value in config.file.values.items():
        theirs_text, ours_text = describe(
            key, config.settings, config.updates, known=key in RunConfig.model_fields
        )
        lines.append(Line(config.file.marks[(key,)][0], key, value, theirs_text, ours_text))
    differences = [
        *_settings_that_differ(config.settings, ours),
        *behaviour(config.settings, config.updates, config.schedule, ours),
        *_outcomes_that_differ(theirs_outcome, ours_outcome),
    ]
    return Explanation(theirs_outcome, ours_outcome, lines, differences)


def our_config(file: YamlFile) -> tuple[RunConfig, dict[str, str]]:
    """The config that ``mlxsched train -c`` makes of a file, without the keys that only mlx-lm puts up with."""
    unknown = set(file.values) - set(RunConfig.model_fields) - {"preset", "config"}
    if not unknown and "config" not in file.values:
        loaded = load_config(file=file.path)
    else:
        values = {key: value for key, value in file.values.items() if key in RunConfig.model_fields}
        loaded = load_config(flags=values)
    return loaded.config, loaded.origins


def _our_outcome(config: RunConfig, origins: Mapping[str, str], rows: int | None) -> Outcome:
    if rows is None and config.epochs is not None:
        return Outcome(None, None, None, None)
    length = plan_length(config, rows or 1)
    schedule = resolve_schedule(config, origins, length.updates).schedule
    last = length.rows_per_update if length.last_rows is None else length.last_rows
    seen = (length.updates - 1) * length.rows_per_update + last
    never = None if rows is None else max(rows - seen, 0)
    return Outcome(length.updates, float(schedule(0)), float(schedule(length.updates - 1)), never)


# Settings of one name that are compared, in the order in which they are shown.
_COMPARED = (
    "model", "data", "mask_prompt", "max_seq_length", "fine_tune_type", "num_layers", "iters", "batch_size",
    "grad_accumulation_steps", "seed", "learning_rate", "optimizer", "val_batches", "steps_per_eval",
    "steps_per_report", "save_every", "test", "test_batches", "grad_checkpoint",
)  # fmt: skip


def _settings_that_differ(theirs: Mapping[str, Any], ours: RunConfig) -> list[Difference]:
    found = []
    for key in _COMPARED:
        here = getattr(ours, key)
        if key == "iters" and here is None:
            here = f"{ours.epochs:g} epochs" if ours.steps is None else counted(ours.steps, "update")
        if key == "learning_rate" and theirs["lr_schedule"]:
            continue  # not used there, nor here
        if key in INTERVALS and here == max(theirs[key] // ours.grad_accumulation_steps, 1):
            continue  # iterations there, updates here
        if theirs[key] != here:
            found.append(Difference(key, theirs[key], "planned" if here is None else here))
    return found


def _outcomes_that_differ(theirs: Outcome, ours: Outcome) -> list[Difference]:
    before, after = asdict(theirs), asdict(ours)
    return [
        Difference(key, value, after[key])
        for key, value in before.items()
        if after[key] is not None and value is not None and value != after[key]
    ]
