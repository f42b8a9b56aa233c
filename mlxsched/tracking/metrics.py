"""The events of a run as the metrics that transformers' callbacks send."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mlxsched.runs.events import Evaluated, UpdateMade


class TrainMetrics:
    """Collects updates and gives the metrics of every ``every`` of them.

    As in transformers, the loss is the mean since the report before; rate and gradient norm are the last update's.

    Args:
        every: updates between reports.
        updates_per_epoch: for ``train/epoch``.
    """

    def __init__(self, every: int, updates_per_epoch: float) -> None:
        self._every, self._updates_per_epoch = max(every, 1), updates_per_epoch
        self._collected: list[UpdateMade] = []

    def add(self, event: UpdateMade) -> dict[str, float]:
        """Collect ``event``; return the metrics if a report is due, else nothing."""
        self._collected.append(event)
        return self.flush() if (event.update + 1) % self._every == 0 else {}

    def flush(self) -> dict[str, float]:
        """The metrics of what was collected since the last report; nothing if there is none."""
        collected, self._collected = self._collected, []
        if not collected:
            return {}
        last = collected[-1]
        losses = [event.loss for event in collected if math.isfinite(event.loss)]
        seconds = sum(event.seconds for event in collected)
        found = {
            "train/loss": sum(losses) / len(losses) if losses else math.nan,
            "train/learning_rate": last.lr,
            "train/grad_norm": last.grad_norm,
            "train/epoch": (last.update + 1) / self._updates_per_epoch,
            "train/global_step": float(last.update + 1),
            "train/tokens_per_second": sum(e.tokens for e in collected) / seconds if seconds else math.nan,
            "train/peak_memory_gb": last.peak_memory_gb,
        }
        return finite(found)


def evaluation_metrics(event: Evaluated) -> dict[str, float]:
    """The metrics of an evaluation.

    >>> evaluation_metrics(Evaluated(10, loss=1.5, perplexity=4.5))
    {'eval/loss': 1.5, 'eval/perplexity': 4.5}
    """
    return finite(
        {"eval/loss": event.loss, "eval/perplexity": event.perplexity, "eval/runtime": event.seconds}
    )


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """``metrics`` without NaN and infinity, which not every tracker stores."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
