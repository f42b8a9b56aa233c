"""From rows, epochs and batch size to updates: the arithmetic of a run, before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from mlxsched.errors import UsageError
from mlxsched.text import counted

EVALUATIONS = 10  # over a run, unless they would cost more than a tenth of it


@dataclass(frozen=True)
class Length:
    """How long a run is. ``last_rows`` bounds the rows of the last update (None: an ordinary one)."""

    updates: int
    updates_per_epoch: int
    rows_per_update: int
    last_rows: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def epochs(self) -> float:
        """Passes over the data, a fraction where the last one is cut short."""
        return self.updates / self.updates_per_epoch


def length_from_epochs(rows: int, epochs: float, batch_size: int, accumulation: int = 1) -> Length:
    """``ceil(epochs * ceil(rows / rows_per_update))`` updates: the tail of an epoch is an update too.

    >>> length_from_epochs(100, 3, 8).updates
    39
    """
    per_update = batch_size * accumulation
    per_epoch = math.ceil(rows / per_update)
    updates = math.ceil(epochs * per_epoch - 1e-9)
    if updates < 1:
        raise UsageError(
            f"{counted(epochs, 'epoch')} of {counted(rows, 'row')} make no update of {counted(per_update, 'row')}. "
            "Raise --epochs."
        )
    return Length(updates, per_epoch, per_update, warnings=_few_rows(rows, per_update))


def length_from_iters(rows: int, iters: int, batch_size: int, accumulation: int = 1) -> Length:
    """``ceil(iters / accumulation)`` updates: an iteration is ``batch_size`` rows, as mlx-lm counts.

    mlx-lm drops the iterations after the last full update; here they are one of fewer rows.

    >>> length_from_iters(5000, 1000, batch_size=4, accumulation=8).updates
    125
    """
    if iters < 1:
        raise UsageError(f"--iters {iters} makes no update. Give at least {accumulation}.")
    per_update = batch_size * accumulation
    left = iters % accumulation
    warnings = list(_few_rows(rows, per_update))
    if left:
        warnings.append(
            f"--iters {iters} is not a multiple of --grad-accumulation-steps {accumulation}: "
            f"the last update has {counted(left * batch_size, 'row')} instead of {per_update}"
        )
    return Length(
        math.ceil(iters / accumulation),
        math.ceil(rows / per_update),
        per_update,
        left * batch_size if left else None,
        tuple(warnings),
    )


def _few_rows(rows: int, per_update: int) -> tuple[str, ...]:
    if rows >= per_update:
        return ()
    return (
        f"an update asks for {counted(per_update, 'row')}, the data has {rows}: each update is the whole data set",
    )


def shorten_warmup(warmup: int | float, updates: int) -> tuple[int | float, str | None]:
    """A preset's warmup, cut to a tenth of the run, and what to say of it.

    A ratio is left alone, and so is a warmup that fits.

    >>> shorten_warmup(200, 750)
    (75, 'warmup shortened from 200 to 75 updates, a tenth of the run')
    """
    limit = max(updates // 10, 1)
    if isinstance(warmup, float) or warmup <= limit:
        return warmup, None
    return limit, f"warmup shortened from {warmup} to {counted(limit, 'update')}, a tenth of the run"


def evaluation_interval(updates: int, rows_per_update: int, valid_rows: int) -> int:
    """Updates between evaluations: ten a run, fewer where they would cost over a tenth of it.

    An evaluated row costs about a third of a trained one, for it has no backward pass.
    """
    affordable = math.ceil(valid_rows / (0.1 * 3 * rows_per_update))
    return min(max(math.ceil(updates / EVALUATIONS), affordable), updates)


def schedule_warnings(
    schedule: Callable[[int], float], schedule_steps: int | None, updates: int
) -> list[str]:
    """What a schedule will not get to do in ``updates`` updates, with the fix."""
    warnings = []
    if schedule_steps is not None and schedule_steps > updates:
        top = max(schedule(step) for step in probe(updates))
        share = schedule(updates - 1) / top if top else 0.0
        warnings.append(
            f"the schedule is made for {counted(schedule_steps, 'update')} and the run has {updates:,}: it ends at "
            f"{share:.0%} of its highest rate. Give the schedule {counted(updates, 'step')}, or train longer"
        )
    if schedule_steps is not None and schedule_steps < 0.9 * updates and schedule(updates - 1) == 0:
        warnings.append(
            f"the schedule ends after {schedule_steps:,} of {counted(updates, 'update')} and the rate is 0 from "
            f"there on. Give the schedule {counted(updates, 'step')}, or train for less"
        )
    if all(schedule(step) == 0 for step in probe(updates)):
        warnings.append("the learning rate is 0 in every update: nothing will be learned")
    return warnings


def probe(updates: int, points: int = 200) -> list[int]:
    """Update indices spread evenly over a run, the first and the last among them."""
    return sorted({round(i * (updates - 1) / (points - 1)) for i in range(points)})


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
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)
