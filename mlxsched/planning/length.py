"""The length of a run in updates, from its rows and batch size and from epochs, iterations or updates."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mlxsched.analysis.findings import Finding
from mlxsched.config.layers import LENGTHS, LIFTS
from mlxsched.config.origins import DEFAULT, outranks
from mlxsched.config.views import LengthSettings
from mlxsched.errors import UsageError
from mlxsched.text import counted

ASSUMED = 1000  # updates of a run whose length only its time limits, until its speed has been measured
EVALUATIONS = 10  # per run, unless they would cost more than a tenth of it


@dataclass(frozen=True)
class Length:
    """The length of a run in updates.

    ``last_rows`` is the number of rows of the last update where it has fewer than the others; None otherwise. ``assumed``
    says that the updates are not known before the speed has been measured.
    """

    updates: int
    updates_per_epoch: int
    rows_per_update: int
    last_rows: int | None = None
    findings: tuple[Finding, ...] = ()
    assumed: bool = False

    @property
    def epochs(self) -> float:
        """Passes over the data; a fraction if the last pass is cut short."""
        return self.updates / self.updates_per_epoch


def plan_length(settings: LengthSettings, rows: int, origins: Mapping[str, str] | None = None) -> Length:
    """The length of a run over ``rows`` training rows, from ``epochs``, mlx-lm's ``iters`` or ``steps``.

    Where ``origins`` say that ``max_time`` was given and the others were not, the time decides: `ASSUMED` updates stand
    for the number that is not known yet.
    """
    found = _plan_length(settings, rows, origins or {})
    return replace(found, findings=(*found.findings, *_lifted(origins or {})))


def _plan_length(settings: LengthSettings, rows: int, origins: Mapping[str, str]) -> Length:
    sizes = (settings.batch_size, settings.grad_accumulation_steps)
    if is_open(settings, origins):
        per_update = sizes[0] * sizes[1]
        per_epoch = math.ceil(rows / per_update)
        return Length(ASSUMED, per_epoch, per_update, findings=_few_rows(rows, per_update), assumed=True)
    if settings.iters is not None:
        return length_from_iters(rows, settings.iters, *sizes)
    if settings.steps is not None:
        return length_from_iters(rows, settings.steps * sizes[1], *sizes)
    return length_from_epochs(rows, settings.epochs or 1.0, *sizes)


def _lifted(origins: Mapping[str, str]) -> Iterator[Finding]:
    """A note that a given length replaces the time limit of a preset."""
    for key in LENGTHS:
        given, _, preset = origins.get(key, DEFAULT).partition(f" ({LIFTS}")
        if preset:
            evidence = f"{given} replaces the time limit (max_time) of {preset.removesuffix(')')}"
            yield Finding(
                "time_limit_lifted", "note", evidence, fix="To limit the time as well, add --max-time"
            )


def is_open(settings: LengthSettings, origins: Mapping[str, str]) -> bool:
    """Whether only ``max_time`` limits the run: it was given, and takes precedence over any other length."""
    length = origins.get(length_key(settings), DEFAULT)
    return settings.max_time is not None and outranks(origins.get("max_time", DEFAULT), length)


def length_key(settings: LengthSettings) -> str:
    """The key that gives the length."""
    return next((key for key in LENGTHS if getattr(settings, key) is not None), "epochs")


def length_from_epochs(rows: int, epochs: float, batch_size: int, accumulation: int = 1) -> Length:
    """``ceil(epochs * ceil(rows / rows_per_update))`` updates: the tail of an epoch is an update too.

    >>> length_from_epochs(100, 3, 8).updates
    39
    """
    per_update = batch_size * accumulation
    per_epoch = math.ceil(rows / per_update)
    # Without the 1e-9, 0.1 epochs of 30 updates would round up from 3.0000000000000004 to 4.
    updates = math.ceil(epochs * per_epoch - 1e-9)
    if updates < 1:
        raise UsageError(
            f"{counted(epochs, 'epoch')} of {counted(rows, 'row')} are less than one update of {counted(per_update, 'row')}. "
            "Raise --epochs."
        )
    return Length(updates, per_epoch, per_update, findings=_few_rows(rows, per_update))


def length_from_iters(rows: int, iters: int, batch_size: int, accumulation: int = 1) -> Length:
    """``ceil(iters / accumulation)`` updates: an iteration is ``batch_size`` rows, as in mlx-lm.

    mlx-lm drops the iterations after the last full update; here they make one more update, of fewer rows.

    >>> length_from_iters(5000, 1000, batch_size=4, accumulation=8).updates
    125
    """
    if iters < 1:
        raise UsageError(f"--iters {iters} is less than one update. Give at least {accumulation}.")
    per_update = batch_size * accumulation
    left = iters % accumulation
    return Length(
        math.ceil(iters / accumulation),
        math.ceil(rows / per_update),
        per_update,
        left * batch_size if left else None,
        _few_rows(rows, per_update) + _last_update(iters, batch_size, accumulation),
    )


def evaluation_interval(
    updates: int, rows_per_update: int, valid_rows: int, evaluations: int = EVALUATIONS
) -> int:
    """Updates between evaluations: so many evaluations per run, fewer if they would take over a tenth of its time.

    Evaluating a row costs about a third of training on it, because there is no backward pass.
    """
    affordable = math.ceil(valid_rows / (0.1 * 3 * rows_per_update))
    return min(max(math.ceil(updates / evaluations), affordable), updates)


def round_interval(updates: int) -> int:
    """1, 2 or 5 times a power of ten, at most ``updates``: it stays the same where a run gets a little longer or shorter.

    >>> [round_interval(n) for n in (1, 4, 9, 99, 100)]
    [1, 2, 5, 50, 100]
    """
    unit: int = 10 ** (len(str(updates)) - 1)
    return next(factor * unit for factor in (5, 2, 1) if factor * unit <= updates)


def _few_rows(rows: int, per_update: int) -> tuple[Finding, ...]:
    if rows >= per_update:
        return ()
    return (
        Finding(
            "few_rows",
            "warning",
            f"an update needs {counted(per_update, 'row')} but the data has only {rows}: "
            "each update uses the whole data set",
            fix="Lower --batch-size or --grad-accumulation-steps, or add rows",
        ),
    )


def _last_update(iters: int, batch_size: int, accumulation: int) -> tuple[Finding, ...]:
    left = iters % accumulation
    if not left:
        return ()
    return (
        Finding(
            "short_last_update",
            "warning",
            f"--iters {iters} is not a multiple of --grad-accumulation-steps {accumulation}: the last update has "
            f"{counted(left * batch_size, 'row')} instead of {accumulation * batch_size}",
        ),
    )
