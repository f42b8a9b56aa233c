"""The training loop: the engine makes updates, policies look at them, and the loop carries out what the policies say."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence

import mlx.core as mx

from mlxsched.model.evaluate import Evaluator
from mlxsched.runs.events import CheckpointSaved, Evaluated, LengthChanged, Notice, Sink, Tick, UpdateMade
from mlxsched.training.batch_loader import BatchLoader, UpdateBatches
from mlxsched.training.checkpointer import Checkpointer
from mlxsched.training.engine import Engine, Outcome
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import (
    Abort,
    Action,
    Evaluate,
    Finish,
    Policy,
    Report,
    Revise,
    RollBack,
    Save,
)
from mlxsched.training.progress import Progress


class Loop:
    """Makes the updates of a run, one after the other.

    Args:
        engine: makes the updates.
        loader: the micro-batches of each update.
        pace: how many updates there are, and the rate of each.
        emit: receives every event.
        policies: asked in this order.
        evaluator: of the validation rows; None where there are none.
        checkpointer: None for a run that keeps nothing on disk.
    """

    def __init__(
        self,
        engine: Engine,
        loader: BatchLoader,
        pace: Pace,
        emit: Sink,
        *,
        policies: Sequence[Policy] = (),
        evaluator: Evaluator | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> None:
        self.engine, self.loader, self.pace, self.emit = engine, loader, pace, emit
        self.policies, self.evaluator, self.checkpointer = policies, evaluator, checkpointer
        self.progress = Progress()

    @property
    def done(self) -> bool:
        """Whether the run has reached its end."""
        return self.progress.update >= self.pace.updates or self.progress.ended is not None

    def run(self) -> None:
        """Make all updates that are left."""
        while self.step():
            pass

    def step(self) -> bool:
        """Do what is due between updates, then make one update; returns False at the end of the run."""
        self._carry_out(
            action for p in self.policies for action in p.between_updates(self.progress, done=self.done)
        )
        if self.done:
            return False
        made = self._update()
        self.emit(made)
        self._carry_out(action for p in self.policies for action in p.after_update(self.progress, made))
        return True

    def restore(self, note: Callable[[str], None], up_to: int | None = None) -> bool:
        """Continue from the last good checkpoint (of at most ``up_to`` updates); returns False where there is none."""
        found = self.checkpointer.restore(self.engine, note, up_to) if self.checkpointer else None
        if found is not None:
            self.progress = found
            self.pace.load(found.to_dict())
        return found is not None

    def evaluate(self) -> None:
        """Measure the validation loss; the best adapter so far is written."""
        if self.evaluator is None:
            return
        started, update = time.perf_counter(), self.progress.update
        result = self.engine.evaluate(self.evaluator, self.ticker("validation"))
        best = self.progress.see_evaluation(result.loss)
        if best and self.checkpointer:
            self.checkpointer.write_adapter(self.engine.tensors())
        if update:
            self.pace.observe(result.loss)
        self.emit(Evaluated(update, result.loss, result.perplexity, best, time.perf_counter() - started))
        progress = self.progress
        self._carry_out(act for p in self.policies for act in p.after_evaluation(progress, result.loss))

    def save(self) -> None:
        """Write a checkpoint of the present state, and the adapter where no validation loss chooses it."""
        if self.checkpointer and self.progress.best_update is None:
            self._write_last_adapter()
        self.write_checkpoint()

    def write_checkpoint(self) -> None:
        """Write a checkpoint of the present state, computing nothing."""
        if self.checkpointer:
            vars(self.progress).update(self.pace.to_dict())
            path = self.checkpointer.save(self.engine, self.progress)
            self.emit(CheckpointSaved(self.progress.update, str(path)))

    def finish(self) -> None:
        """Write the adapter after the last update: as the one to use, or beside the best one."""
        progress = self.progress
        if progress.best_update is None:
            self._write_last_adapter()
        elif self.checkpointer and (progress.best_update != progress.update or progress.best_average):
            self.checkpointer.write_final_adapter(self.engine.tensors())

    def _write_last_adapter(self) -> None:
        """Without a validation loss to choose by, the adapter to use is the last one whose loss has not diverged.

        Finite weights are not enough: at a rate of 1e10 they are finite and compute a NaN.
        """
        update = self.progress.update
        if self.progress.good_update != update or update == 0:
            self.progress.see_training_loss(self.engine.loss(self.loader(update)))
        if self.checkpointer and self.progress.good_update == update:
            self.checkpointer.write_adapter(self.engine.tensors())

    def ticker(self, what: str) -> Callable[[int, int], None]:
        """A callback for long work: shows its progress, and lets the policies interrupt it."""

        def tick(done: int, total: int) -> None:
            self.emit(Tick(self.progress.update, what, done, total))
            self._carry_out(action for p in self.policies for action in p.during_work(self.progress))

        return tick

    def _update(self) -> UpdateMade:
        """Make the next update; the batches of the one after it are laid out while the device works."""
        started, update = time.perf_counter(), self.progress.update
        batches, rate = self.loader(update), self.pace.rate(update)
        outcome = self.engine.update(batches, rate)
        if update + 1 < self.pace.updates:
            self.loader.prepare(update + 1)
        outcome.wait()
        seconds = time.perf_counter() - started
        self.progress.see_update(outcome, batches, seconds)
        return _event(batches, rate, outcome, seconds, self.progress.smoothed)

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Evaluate():
                    self.evaluate()
                case Save():
                    self.save()
                case Report(notice):
                    self.emit(notice)
                case Finish(reason):
                    self.progress.ended = self.progress.ended if self.done else reason
                case Revise(revision):
                    self.pace.revise(revision)
                    self.emit(LengthChanged(self.progress.update, self.pace.updates))
                case RollBack():
                    self._roll_back(action)
                case Abort(error):
                    raise error

    def _roll_back(self, action: RollBack) -> None:
        notes: list[str] = []
        best = self.progress.best
        if not self.restore(notes.append, action.up_to):
            raise action.otherwise
        self.pace.factor *= action.factor
        self.progress.bad_in_a_row = 0
        # adapters/ still holds the best adapter of the updates that are undone: a worse one must not replace it.
        self.progress.take_best(best or {})
        update = self.progress.update
        for text in notes:
            self.emit(Notice(update, "note", text))
        text = f"{action.reason}: rolled back to update {update}, rate multiplied by {action.factor:g}"
        self.emit(Notice(update, "rollback", text))
        self.save()


def _event(
    batches: UpdateBatches, rate: float, outcome: Outcome, seconds: float, smoothed: float | None
) -> UpdateMade:
    """The event of an update; ``smoothed`` is the running mean of the loss after it."""
    return UpdateMade(
        update=batches.update,
        loss=outcome.loss,
        lr=rate,
        grad_norm=outcome.grad_norm,
        tokens=batches.n_tokens,
        targets=batches.n_targets,
        tokens_per_second=batches.n_tokens / seconds,
        peak_memory_gb=mx.get_peak_memory() / 1e9,
        seconds=seconds,
        smoothed=math.nan if smoothed is None else smoothed,
        applied=outcome.applied,
    )
