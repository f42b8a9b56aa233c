"""What a run has got to, apart from its tensors: all that a checkpoint must know to continue exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from mlxsched.errors import RunError
from mlxsched.runs.json_file import is_count
from mlxsched.runs.requests import Request, is_revision

if TYPE_CHECKING:
    from mlxsched.training.batch_loader import UpdateBatches
    from mlxsched.training.engine import Outcome

SMOOTHING = 0.9  # share of the old value in the running averages
SPIKE_DEVIATIONS = 6.0
SPIKE_AFTER = 20  # updates before the averages mean something
WINDOW = 20  # training losses kept, for the test of divergence


@dataclass
class Progress:
    """Counters and running averages after ``update`` updates.

    ``peak_factor``, ``schedule_state`` and ``revisions`` are those of `mlxsched.training.pace.Pace`. ``start_loss`` and
    ``start_evaluation`` are the training and the validation loss of the model as it came. ``good_update`` is the last number of updates after which the model was seen to
    compute a sane loss (`is_sane`). ``recent_losses`` holds up to `WINDOW` training losses. ``ended`` says why the run is
    over before its plan is. ``times`` is what `mlxsched.training.policies.time_budget` has spent and measured, in seconds. ``plateau``
    holds update and loss of each evaluation at a constant rate, for `mlxsched.training.policies.plateau`.
    """

    update: int = 0
    smoothed: float | None = None
    deviation: float = 0.0
    tokens: int = 0
    targets: int = 0
    seconds: float = 0.0
    best_update: int | None = None
    best_loss: float | None = None
    best_average: str | None = None
    averaged_update: int | None = None
    evaluated_update: int | None = None
    evaluated_loss: float | None = None
    evaluations_since_best: int = 0
    bad_in_a_row: int = 0
    peak_factor: float = 1.0
    schedule_state: dict[str, Any] | None = None
    revisions: list[dict[str, Any]] = field(default_factory=list)
    start_loss: float | None = None
    start_evaluation: float | None = None
    good_update: int = 0
    recent_losses: list[float] = field(default_factory=list)
    ended: str | None = None
    results: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    plateau: list[list[float]] = field(default_factory=list)

    # Not part of a checkpoint: what this process has done.
    saved_update: int | None = field(default=None, compare=False, metadata={"transient": True})
    last_was_spike: bool = field(default=False, compare=False, metadata={"transient": True})

    def see_update(self, outcome: Outcome, batches: UpdateBatches, seconds: float) -> None:
        """Count an update, and take its loss into the averages if it was applied."""
        self.see_training_loss(outcome.loss)
        self.update += 1
        self.tokens += batches.n_tokens
        self.targets += batches.n_targets
        self.seconds += seconds
        self.bad_in_a_row = 0 if outcome.applied else self.bad_in_a_row + 1
        self.last_was_spike = outcome.applied and self._see_loss(outcome.loss)

    def see_training_loss(self, loss: float) -> None:
        """Record the training loss that the model computes after ``update`` updates."""
        if self.update == 0 and math.isfinite(loss):
            self.start_loss = loss
        if self.is_sane(loss):
            self.good_update = self.update

    def is_sane(self, loss: float) -> bool:
        """Whether a loss is finite and exceeds that of the model before training by at most half, or one nat."""
        start = math.inf if self.start is None else self.start
        return math.isfinite(loss) and loss <= start + max(1.0, 0.5 * start)

    @property
    def start(self) -> float | None:
        """The loss before training: the higher one of training and validation, since a single batch is noisy."""
        known = [loss for loss in (self.start_loss, self.start_evaluation) if loss is not None]
        return max(known, default=None)

    def _see_loss(self, loss: float) -> bool:
        """Take a loss into the running averages; returns whether it was a spike."""
        self.recent_losses = [*self.recent_losses, loss][-WINDOW:]
        if self.smoothed is None:
            self.smoothed = loss
            return False
        distance = loss - self.smoothed
        spike = (
            self.update >= SPIKE_AFTER
            and distance > SPIKE_DEVIATIONS * self.deviation
            and loss > 1.5 * self.smoothed
        )
        self.deviation = SMOOTHING * self.deviation + (1 - SMOOTHING) * abs(distance)
        self.smoothed += (1 - SMOOTHING) * distance
        return spike

    def see_evaluation(self, loss: float) -> bool:
        """Take a validation loss; returns whether it is the best so far."""
        self.evaluated_update, self.evaluated_loss = self.update, loss if math.isfinite(loss) else None
        if self.update == 0:
            self.start_evaluation = self.evaluated_loss
        if self.is_sane(loss):
            self.good_update = self.update
        better = math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_update, self.best_average = loss, self.update, None
        by_average = self.best_average is not None and self.best_update == self.update  # measured just before
        improved = better or by_average
        self.evaluations_since_best = 0 if improved else self.evaluations_since_best + 1
        return better

    def see_average(self, name: str, loss: float | None) -> bool:
        """Take the validation loss of the average ``name``, None if it was not measured; returns whether it is the best."""
        self.averaged_update = self.update
        loss = loss if loss is not None and math.isfinite(loss) else None
        self.results["average"] = {"name": name, "update": self.update, "loss": loss}
        better = loss is not None and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_update, self.best_average = loss, self.update, name
        return better

    @property
    def best(self) -> dict[str, Any] | None:
        """Update and loss of the best evaluation, and the name of the average if it is that of one."""
        if self.best_loss is None:
            return None
        average = {"average": self.best_average} if self.best_average else {}
        return {"update": self.best_update, "loss": self.best_loss, **average}

    def follow(self, request: Request) -> None:
        """Take the horizon of ``request``: a run that had ended goes on, and is measured again at its new end."""
        self.revisions = list(request.revisions)
        self.results.pop("after", None)
        # The time limit of a request counts from then on; what an evaluation takes is still known.
        self.times = {key: value for key, value in self.times.items() if key not in ("spent", "at")}
        if self.ended is not None:
            self.ended, self.evaluations_since_best = None, 0

    def take_best(self, best: Mapping[str, object]) -> None:
        """Take the best evaluation from ``run.json``; anything that is not one is ignored."""
        update, loss, average = best.get("update"), best.get("loss"), best.get("average")
        if is_count(update) and _is_number(loss):
            self.best_update, self.best_loss = update, loss  # type: ignore[assignment]  # checked just above
            self.best_average = average if isinstance(average, str) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {key: value for key, value in asdict(self).items() if key in _SAVED}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Progress:
        """The inverse of `to_dict`.

        Raises:
            RunError: a key or a value is not one that a checkpoint holds.
        """
        wrong = [key for key, value in data.items() if not _fits(key, value)]
        if wrong:
            raise RunError(
                f"the checkpoint's state.json has {wrong[0]!r} = {str(data[wrong[0]])[:60]}, which this version of mlxsched "
                "does not write. The file is damaged or from another version."
            )
        return cls(**data)


_SAVED = {item.name for item in fields(Progress) if not item.metadata.get("transient")}
_COUNTS = {"update", "good_update", "tokens", "targets", "evaluations_since_best", "bad_in_a_row"}
_AMOUNTS = {"deviation", "seconds"}
_OPTIONAL_COUNTS = {"best_update", "evaluated_update", "averaged_update"}
_OPTIONAL_LOSSES = {"smoothed", "best_loss", "evaluated_loss", "start_loss", "start_evaluation"}
_MOST = 2**53  # beyond that a JSON number is not exact


def _fits(key: str, value: object) -> bool:
    """Whether ``value`` can be that of ``key``: a checkpoint may have been edited, or come from a stranger."""
    if key not in _SAVED:
        return False
    if key in _COUNTS or (key in _OPTIONAL_COUNTS and value is not None):
        return is_count(value)
    if key in _OPTIONAL_COUNTS or (key in _OPTIONAL_LOSSES and value is None):
        return True
    if key in _OPTIONAL_LOSSES:
        return _is_number(value)
    if key in _AMOUNTS:
        return _is_number(value) and value >= 0  # type: ignore[operator]
    if key == "peak_factor":
        return _is_number(value) and 0 < value <= 1  # type: ignore[operator]
    if key == "recent_losses":
        return isinstance(value, list) and len(value) <= WINDOW and all(map(_is_number, value))
    if key == "revisions":
        return isinstance(value, list) and all(map(is_revision, value))
    if key == "results":
        return isinstance(value, dict)
    if key == "plateau":
        return isinstance(value, list) and all(
            isinstance(one, list) and len(one) == 2 and all(map(_is_number, one)) for one in value
        )
    if key == "times":
        return isinstance(value, dict) and all(_is_number(one) and one >= 0 for one in value.values())
    return value is None or isinstance(value, dict if key == "schedule_state" else str)


def _is_number(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) < _MOST  # type: ignore[arg-type]  # also false for a NaN
