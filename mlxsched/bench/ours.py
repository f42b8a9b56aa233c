"""Our loop, as `mlxsched train` runs it, timed from outside through what it tells."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.bench.measured import Measured, Moment, PeakMemory
from mlxsched.data.batching.plan import batching_stats
from mlxsched.model.evaluate import Evaluator
from mlxsched.runs.events import Event, Notice, UpdateMade
from mlxsched.training.acceleration import evaluation_path
from mlxsched.training.loop import Trainer
from mlxsched.training.run import create_run
from mlxsched.training.session import Session

Note = Callable[[str], None]


def order_of_epoch(session: Session) -> NDArray[np.int64]:
    """The rows of the first epoch, update after update."""
    return np.concatenate(session.order.samples(session.plan.updates_per_epoch))


class _Watch:
    """Notes the time at the beginning of each update and at the end of the last one, and every loss."""

    def __init__(self, note: Note) -> None:
        self.begun: list[Moment] = []
        self.losses: list[float] = []
        self.end = Moment.now()
        self._note = note

    def between_updates(self, _save: Callable[[], None]) -> list[Event]:
        self.begun.append(Moment.now())
        return []

    def emit(self, event: Event) -> None:
        if isinstance(event, UpdateMade):
            self.losses.append(event.loss)
            self.end = Moment.now()
        elif isinstance(event, Notice):
            self._note(event.message)


def train(session: Session, reported: int, note: Note = lambda text: None) -> Measured:
    """Train ``session`` in a directory that goes at the end; losses are means over ``reported`` updates."""
    started, peak, watch = Moment.now(), PeakMemory(), _Watch(note)
    with tempfile.TemporaryDirectory() as directory:
        run = create_run(session, Path(directory) / "run")
        with run.lock():
            trainer = Trainer(session, run, watch.emit, between_updates=watch.between_updates)
            start_peak = peak()
            mx.reset_peak_memory()
            trainer.train()
    per_epoch = session.plan.updates_per_epoch
    edges = [*watch.begun[: session.plan.updates], watch.end][::per_epoch]
    losses = watch.losses[:per_epoch]
    return Measured(
        epochs=[b.since(a) for a, b in itertools.pairwise(edges)],
        wall=edges[1].wall - edges[0].wall,
        start=edges[0].since(started),
        losses=[
            float(np.mean(losses[i : i + reported])) for i in range(0, per_epoch - reported + 1, reported)
        ],
        peak=max(peak(), start_peak),
        start_peak=start_peak,
        padded=batching_stats(session.cut, session.order, per_epoch).positions,
    )


def evaluate(session: Session, times: int = 2) -> tuple[list[float], float]:
    """Seconds of each of ``times`` evaluations of the training rows by one evaluator, and the loss."""
    model, rows = session.loaded.model, session.train_rows
    path = evaluation_path(model, rows)
    tree = model.trainable_parameters()
    evaluator, seconds, loss = None, [], 0.0
    for _ in range(times):
        started = Moment.now()
        evaluator = evaluator or Evaluator(model, rows, path, max_tokens=session.micro_batch_tokens)
        loss = evaluator(tree).loss
        seconds.append(Moment.now().since(started))
    return seconds, loss
