"""What a run has got to, beside its tensors: everything a checkpoint must know to go on exactly."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from mlxsched.errors import RunError

SMOOTHING = 0.9  # share of the old value in the running averages
SPIKE_DEVIATIONS = 6.0
SPIKE_AFTER = 20  # updates before the averages mean something


@dataclass
class Progress:
    """Counters and running averages after ``update`` updates."""

    update: int = 0
    smoothed: float | None = None
    deviation: float = 0.0
    tokens: int = 0
    targets: int = 0
    seconds: float = 0.0
    best_update: int | None = None
    best_loss: float | None = None
    evaluated_update: int | None = None
    evaluations_since_best: int = 0
    bad_in_a_row: int = 0
    bad_updates: int = 0
    peak_factor: float = 1.0
    schedule_state: dict[str, Any] | None = None
    ended: str | None = None  # why the run is over before its plan is
    results: dict[str, Any] = field(default_factory=dict)

    def see_loss(self, loss: float) -> bool:
        """Take a loss into the running averages; says whether it was a spike."""
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
        """Take a validation loss; says whether it is the best so far."""
        self.evaluated_update = self.update
        better = math.isfinite(loss) and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_update = loss, self.update
        self.evaluations_since_best = 0 if better else self.evaluations_since_best + 1
        return better

    @property
    def best(self) -> dict[str, Any] | None:
        """Update and loss of the best evaluation."""
        return None if self.best_loss is None else {"update": self.best_update, "loss": self.best_loss}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Progress:
        """The inverse of `to_dict`."""
        try:
            return cls(**data)
        except TypeError as error:
            raise RunError(
                f"the checkpoint's state does not belong to this version of mlxsched: {error}"
            ) from error
