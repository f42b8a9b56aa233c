"""Worker 0: it decides, and tells the others."""

from __future__ import annotations

import itertools
import time

from mlxsched.errors import RunError
from mlxsched.model.evaluate import Evaluator, LossResult, OnProgress, PartialLoss
from mlxsched.training.batch_loader import UpdateBatches
from mlxsched.training.engine import Outcome, Snapshot
from mlxsched.training.workers.engine import ROUND, SharedEngine
from mlxsched.training.workers.world import WorkersLost

REST = 1.0  # seconds for which the others sleep at a time: MLX keeps a core busy while it waits for a message


class LeadingEngine(SharedEngine):
    """Does what `Engine` does, together with the others: each method first tells them what to do."""

    _told = 0.0

    def update(self, batches: UpdateBatches, rate: float) -> Outcome:
        self._tell(do="update", update=batches.update, rows=len(batches.rows), rate=rate)
        return super().update(batches, rate)

    def loss(self, batches: UpdateBatches) -> float:
        self._tell(do="loss", update=batches.update, rows=len(batches.rows))
        return super().loss(batches)

    def evaluate(self, evaluator: Evaluator, on_progress: OnProgress | None = None) -> LossResult:
        """The loss on the rows of ``evaluator``, of which every worker evaluates its part.

        In rounds: between two of them the others wait for an order, so ``on_progress`` may end the evaluation.
        """
        rounds: list[PartialLoss] = []
        for start in itertools.count(0, ROUND):
            self._tell(do="evaluate", start=start)
            found, more = self.evaluate_round(evaluator, start)
            self._told = time.monotonic()  # so that nobody rests between two rounds
            rounds.append(found)
            total = PartialLoss.sum_of(rounds)
            if on_progress:
                on_progress(total.rows, evaluator.n_rows)
            if not more:
                break
        return LossResult(total.loss / total.targets, total.targets, total.rows)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot`` with all workers."""
        self._tell(do="restore")
        try:
            self.share(snapshot)
        except WorkersLost as lost:
            # Not a moment to save: the run is between two states, both of which are on the disk.
            raise RunError(str(lost)) from lost

    def rest(self, seconds: float = REST) -> None:
        """Let the others sleep, and know that the leader is still there; at most once in ``seconds``."""
        if time.monotonic() - self._told >= seconds:
            self._tell(do="rest", seconds=seconds)

    def _tell(self, **order: object) -> None:
        self.world.tell(order)
        self.world.busy = order["do"] != "rest"
        self._told = time.monotonic()
