"""`Plan`: what a run is going to do, before it does it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mlxsched.analysis.findings import Finding
from mlxsched.config.views import PlanSettings
from mlxsched.planning.length import EVALUATIONS, Length, evaluation_interval, round_interval
from mlxsched.planning.schedule import ResolvedSchedule

PLATEAU_EVALUATIONS = 60  # per run that ends when they stop improving: a trend shows in many of them only


@dataclass(frozen=True)
class DataSize:
    """Rows of each split; tokens and targets of one epoch of the training rows.

    A target of joined rows counts once for each of them, as in ``metrics.jsonl``.
    """

    rows: int
    valid_rows: int
    test_rows: int
    tokens: int
    targets: int


@dataclass(frozen=True)
class ModelSize:
    """Parameters of a model, those that are trained, and the estimated peak of memory in GB."""

    parameters: int
    trainable: int
    peak_memory_gb: float


@dataclass(frozen=True)
class Plan:
    """All that a run is going to do. Token counts are of one epoch; memory is an estimate in GB."""

    rows: int
    valid_rows: int
    test_rows: int
    updates: int
    epochs: float
    updates_per_epoch: int
    batch_size: int  # rows of an update
    length_window: int  # updates that share out their rows by length
    last_rows: int | None
    tokens: int
    targets: int
    schedule: dict[str, Any]
    warmup: int
    peak: float
    steps_per_eval: int
    save_every: int
    parameters: int
    trainable: int
    peak_memory_gb: float
    findings: tuple[Finding, ...] = ()
    max_time: float | None = None  # seconds
    assumed: bool = False  # the updates: the time decides, and the speed is not known yet

    @property
    def notes(self) -> list[str]:
        """The findings that the user should know of and need not act on, as text."""
        return [str(finding) for finding in self.findings if finding.severity == "note"]

    @property
    def warnings(self) -> list[str]:
        """The other findings, as text."""
        return [str(finding) for finding in self.findings if finding.severity != "note"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        findings = [finding.to_dict() for finding in self.findings]
        return {**asdict(self), "findings": findings, "notes": self.notes, "warnings": self.warnings}


def make_plan(
    settings: PlanSettings,
    length: Length,
    schedule: ResolvedSchedule,
    data: DataSize,
    model: ModelSize,
    findings: Sequence[Finding] = (),
) -> Plan:
    """Put a plan together; ``findings`` are those about settings, model, data and memory."""
    return Plan(
        rows=data.rows,
        valid_rows=data.valid_rows,
        test_rows=data.test_rows,
        updates=length.updates,
        epochs=round(length.epochs, 4),
        updates_per_epoch=length.updates_per_epoch,
        batch_size=length.rows_per_update,
        length_window=settings.length_window,
        last_rows=length.last_rows,
        tokens=data.tokens,
        targets=data.targets,
        schedule=schedule.to_dict(),
        warmup=schedule.warmup,
        peak=schedule.peak,
        steps_per_eval=steps_per_eval(settings, length.updates, length.rows_per_update, data.valid_rows),
        save_every=settings.save_every,
        parameters=model.parameters,
        trainable=model.trainable,
        peak_memory_gb=round(model.peak_memory_gb, 3),
        findings=(*findings, *length.findings, *schedule.findings),
        max_time=settings.max_time,
        assumed=length.assumed,
    )


def steps_per_eval(settings: PlanSettings, updates: int, rows_per_update: int, valid_rows: int) -> int:
    """Updates between two evaluations in a run of ``updates``; a round number where a time limit may change that."""
    rows = valid_rows
    if settings.val_batches >= 0:
        rows = min(valid_rows, settings.val_batches * settings.batch_size)
    if settings.steps_per_eval:
        return settings.steps_per_eval
    most = PLATEAU_EVALUATIONS if settings.until_plateau else EVALUATIONS
    interval = evaluation_interval(updates, rows_per_update, rows, most)
    may_change = settings.max_time is not None and interval < updates
    return round_interval(interval) if may_change else interval
