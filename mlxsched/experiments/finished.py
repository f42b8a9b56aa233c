"""Finished runs as a comparison: differences in their settings define the variants; runs that differ only in the seed
are repetitions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.config.layers import LENGTHS
from mlxsched.experiments.ranking import Measured, points_of
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.info import RunInfo
from mlxsched.runs.json_file import finite_number
from mlxsched.runs.recording import read_recording
from mlxsched.runs.store import StoredRun
from mlxsched.runs.summary import INTERRUPTED, RunSummary, summarize

OWN = (
    "learning_rate",
    "seed",
    "run_dir",
    "name",
    "adapter_path",
    "report_to",
    "project_name",
    "description",
    "schedule",
    "lr_schedule",
)
"""Keys that do not define a variant: the peak, the seed, and the location of a run. The schedule is named first."""

ROWS = "rows"
"""Stands for a key if only the content of the data distinguishes variants."""

UNFINISHED = ("running", "failed", INTERRUPTED)
"""Statuses of a run whose training could have continued."""


@dataclass(frozen=True)
class FinishedRun:
    """A run of the comparison.

    Args:
        summary: what a list of runs shows of it.
        config: its settings.
        best: the best validation loss; None where none was measured.
        last: the last validation loss; None where there is none.
        results: what was measured after the training.
        data: the fingerprint of its rows.
        valid: the fingerprint of its validation rows; None without any, and for a run of an earlier version.
        split_by_seed: whether its data is one file, so that the seed decides which rows are validation rows.
        model: the fingerprint of its model.
        evaluated: the largest number of validation rows in an evaluation.
        epochs: passes over the data; None if that is not known.
    """

    summary: RunSummary
    config: Mapping[str, object]
    best: float | None
    last: float | None
    results: Mapping[str, object]
    data: object
    valid: object
    split_by_seed: bool
    model: object
    evaluated: int
    epochs: float | None = None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else 0

    def value(self, key: str) -> object:
        """The value of a key of `differing`."""
        return str(self.data)[:8] if key == ROWS else self.config.get(key)

    @property
    def schedule(self) -> str:
        """The schedule as the settings name it."""
        for key in ("schedule", "lr_schedule"):
            value = self.config.get(key)
            if value is not None:
                return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
        return "?"


def read_finished(path: Path) -> FinishedRun:
    """The run in ``path``.

    Raises:
        UserError: there is none, or it has recorded no update.
    """
    run, recording = RunDirectory.open(path), read_recording(path)
    recording.require_updates()
    info = run.info
    losses = recording.evaluations.curve("loss").values
    noted = finite_number((info.best or {}).get("loss"))
    after: Any = info.results.get("after")
    return FinishedRun(
        summarize(StoredRun(path, info)),
        _config(info),
        min(losses, default=None)
        if noted is None
        else noted,  # never the summary's: it may be a training loss
        losses[-1] if losses else None,
        after if isinstance(after, dict) else {},
        info.data.get("fingerprint"),
        info.data.get("valid"),
        info.data.get("split_by_seed") is True,
        info.model.get("fingerprint"),
        _evaluated(info),
        _epochs(info),
    )


def _config(info: RunInfo) -> Mapping[str, object]:
    """The settings of a run, without a length that its time limit replaced."""
    return {**info.config, **dict.fromkeys(LENGTHS)} if info.plan.get("assumed") else info.config


def _epochs(info: RunInfo) -> float | None:
    in_epoch = info.plan.get("updates_per_epoch")
    return info.update / in_epoch if isinstance(in_epoch, int) and in_epoch > 0 else None


def _evaluated(info: RunInfo) -> int:
    rows, batches, size = info.plan.get("valid_rows"), *map(info.config.get, ("val_batches", "batch_size"))
    if not isinstance(rows, int) or not isinstance(batches, int) or not isinstance(size, int) or batches < 0:
        return rows if isinstance(rows, int) else 0
    return min(rows, batches * size)


def differing(runs: Sequence[FinishedRun]) -> list[str]:
    """The keys, besides those of `OWN`, whose values are not the same in all runs; `ROWS` where these don't suffice."""
    known = dict.fromkeys(key for run in runs for key in run.config if key not in OWN)
    keys = [key for key in known if len({repr(run.config.get(key)) for run in runs}) > 1]
    equal = {(variant_of(run, keys), run.summary.peak, run.seed) for run in runs}
    same_rows = {(variant_of(run, keys), run.summary.peak, run.seed, run.data) for run in runs}
    return keys if len(equal) == len(same_rows) else [*keys, ROWS]


def settings_of(run: FinishedRun, keys: Sequence[str]) -> dict[str, object]:
    """The values of ``keys``, those of nested keys by their path: ``lora_parameters.rank``.

    The epochs are those that were trained, if none were given or the run had a time limit.
    """
    found: dict[str, object] = {}
    for key in keys:
        value = run.value(key)
        if key == "epochs" and (value is None or run.config.get("max_time") is not None):
            value = run.epochs
        inner = value if isinstance(value, dict) else {}
        found |= {f"{key}.{name}": one for name, one in inner.items()} if inner else {key: value}
    return found


def variant_of(run: FinishedRun, keys: Sequence[str]) -> str:
    """The name of a run's variant: its schedule, and its values of ``keys``, without limits that are not set."""
    values = {key: run.value(key) for key in keys}
    limits = (*LENGTHS, "max_time")
    shown = [f"{key}={value}" for key, value in values.items() if value is not None or key not in limits]
    return ", ".join([run.schedule, *shown])


def measured(runs: Sequence[FinishedRun]) -> list[Measured]:
    """The best validation loss of each run that has one, by variant, peak and seed; the later of two equal runs counts."""
    keys = differing(runs)
    return [
        Measured(variant_of(run, keys), run.summary.peak or 0.0, run.seed, run.best)
        for run in runs
        if run.best is not None
    ]


def incomparable(runs: Sequence[FinishedRun]) -> list[str]:
    """Why the losses of the runs are not comparable; empty if they are."""
    apart = ["model"] if len({run.model for run in runs}) > 1 else []
    if any(run.valid is None for run in runs):
        apart += ["data"] if len({run.data for run in runs}) > 1 else []
    elif _other_rows(runs) and not _repetitions(runs):
        apart.append("validation rows")
    if len({run.evaluated for run in runs}) > 1 and "validation rows" not in apart:
        apart.append("number of validation rows (--val-batches)")
    what = " or ".join([", ".join(apart[:-1]), apart[-1]] if len(apart) > 1 else apart)
    return (
        [f"the runs don't have the same {what}, so their losses are not comparable and not ranked."]
        if apart
        else []
    )


def _other_rows(runs: Sequence[FinishedRun]) -> bool:
    return len({run.valid for run in runs}) > 1


def _repetitions(runs: Sequence[FinishedRun]) -> bool:
    """Whether only the seed decides which rows of one file are validation rows, and each variant has the same seeds.

    Then the runs of each seed are evaluated on the same rows.
    """
    per_seed = {(run.seed, run.valid) for run in runs}
    seeds = {tuple(sorted(point.losses)) for point in points_of(measured(runs))}
    return all(run.split_by_seed for run in runs) and len(per_seed) == len(dict(per_seed)) and len(seeds) == 1


def doubts(runs: Sequence[FinishedRun]) -> list[str]:
    """Which of the runs say less than the others, and whether repetitions are evaluated on different rows."""
    found = []
    if _other_rows(runs) and _repetitions(runs):
        found.append(
            "the seed decides which rows of the data are validation rows, so runs with different seeds are evaluated on "
            "different rows. To evaluate all on the same rows, put these into a valid.jsonl next to a train.jsonl."
        )
    for run in runs:
        name, status = run.summary.name, run.summary.status
        if run.best is None:
            found.append(f"{name} has no validation loss, so it is not ranked.")
        elif status in UNFINISHED:
            found.append(f"{name} is {status}: its best validation loss so far is compared.")
    return found


def result(run: FinishedRun, variant: str) -> dict[str, Any]:
    """One run for the JSON."""
    numbers = {key: finite_number(run.results.get(key)) for key in ("test_loss", "exact_match")}
    return {
        "schedule": run.schedule,
        "peak": run.summary.peak,
        "seed": run.seed,
        "loss": run.best,
        "last_loss": run.last,
        "updates": run.summary.updates,
        "variant": variant,
        "run": str(run.summary.path),
        "status": run.summary.status,
        "seconds": run.summary.seconds,
        **numbers,
    }
