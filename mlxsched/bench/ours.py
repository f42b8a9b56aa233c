"""Our loop, as `mlxsched train` runs it, timed from its events."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.bench.measured import LoopCost, Moment, PeakMemory
from mlxsched.data.batching.plan import batching_stats
from mlxsched.model.evaluate import Evaluator
from mlxsched.model.fast.selection import Note
from mlxsched.runs.events import Event, Notice, UpdateMade
from mlxsched.training.acceleration import accelerate, evaluation_path
from mlxsched.training.assembly import make_engine, make_loader, make_pace
from mlxsched.training.loop import Loop
from mlxsched.training.policies.base import Action, Policy
from mlxsched.training.progress import Progress
from mlxsched.training.session import Session


def order_of_epoch(session: Session) -> NDArray[np.int64]:
    """The rows of the first epoch, update after update."""
    return np.concatenate(session.sampler.samples(session.plan.updates_per_epoch))


class _Watch(Policy):
    """Takes the time at the start of each update and at the end of the last one, and every loss."""

    def __init__(self, note: Note) -> None:
        self.begun: list[Moment] = []
        self.losses: list[float] = []
        self.end = Moment.now()
        self._note = note

    def between_updates(self, progress: Progress, *, done: bool) -> Iterable[Action]:
        self.begun.append(Moment.now())
        return ()

    def emit(self, event: Event) -> None:
        if isinstance(event, UpdateMade):
            self.losses.append(event.loss)
            self.end = Moment.now()
        elif isinstance(event, Notice):
            self._note(event.message)


def train(session: Session, reported: int, note: Note = lambda text: None) -> LoopCost:
    """Train ``session`` as `mlxsched train` does, but without writing files; losses are means over ``reported``
    updates."""
    started, peak, watch = Moment.now(), PeakMemory(), _Watch(note)
    with tempfile.TemporaryDirectory() as directory:
        acceleration = accelerate(session, Path(directory), note)
        pace = make_pace(session)
        loader = make_loader(session, acceleration.training, pace)
        engine = make_engine(session, acceleration.training)
        session.loaded.model.train()
        start_peak = peak()
        mx.reset_peak_memory()
        Loop(engine, loader, pace, watch.emit, policies=[watch]).run()
        engine.load_into_model()
    per_epoch = session.plan.updates_per_epoch
    edges = [*watch.begun[: session.plan.updates], watch.end][::per_epoch]
    losses = watch.losses[:per_epoch]
    return LoopCost(
        epochs=[b.since(a) for a, b in itertools.pairwise(edges)],
        wall=edges[1].wall - edges[0].wall,
        start=edges[0].since(started),
        losses=[
            float(np.mean(losses[i : i + reported])) for i in range(0, per_epoch - reported + 1, reported)
        ],
        peak=max(peak(), start_peak),
        start_peak=start_peak,
        padded=batching_stats(session.batching, session.sampler, per_epoch, session.train_rows).positions,
    )


def evaluate(session: Session, times: int = 2) -> tuple[list[float], float]:
    """Seconds of each of ``times`` evaluations of the training rows by one evaluator, and the loss."""
    model, rows = session.loaded.model, session.train_rows
    path = evaluation_path(model, rows, shared=session.config.shares_prompts)
    tree = model.trainable_parameters()
    evaluator, seconds, loss = None, [], 0.0
    for _ in range(times):
        started = Moment.now()
        evaluator = evaluator or Evaluator(model, rows, path, max_tokens=session.micro_batch_tokens)
        loss = evaluator(tree).loss
        seconds.append(Moment.now().since(started))
    return seconds, loss
