"""Estimates how long a run will take, by timing a few micro-batches before it.

The time of updates and evaluations follows from the shapes of their micro-batches; checkpoints, the test rows and the
answers to them are included. Timing does not affect the run: its results are discarded, parameters and optimizer state
are restored, and dropout depends only on seed and update.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Places
from mlxsched.data.batching.grid import Shape
from mlxsched.data.batching.plan import BatchingStats, batching_stats
from mlxsched.model.fast.activation_files import SharedFolder, StoredActivations, StoreLayout
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.frozen_prefix import PrefixBoundary
from mlxsched.model.fast.prefix_activations import ActivationStore
from mlxsched.model.trees import n_bytes
from mlxsched.training.acceleration import Acceleration, accelerate
from mlxsched.training.answer_times import LATE, AnswerTimes, times_of_answers
from mlxsched.training.assembly import make_engine, make_evaluator, work_of
from mlxsched.training.batch_loader import UpdateBatches
from mlxsched.training.engine import Engine
from mlxsched.training.peak_probe import VOCABULARY, random_batch
from mlxsched.training.results import test_evaluator, test_examples
from mlxsched.training.session import Session
from mlxsched.training.shape_times import ShapeTimes, Stopwatch
from mlxsched.training.timing import Costs

_LOG = logging.getLogger(__name__)

MOST, SHARE = 3.0, 0.02  # seconds, and share of the run, that timing may take
SHORT = 1e11  # operations: a run of fewer takes seconds and is not timed
QUICK_CPU, QUICK_GPU = 5e7, 4e9  # parameters of a model that is checked and timed in a few seconds
FILES, BYTES = 0.03, 3e8  # seconds for the files of a checkpoint, and bytes a second on a usual disk


@dataclass(frozen=True)
class Estimate:
    """Seconds that a run and each of its parts are expected to take.

    Args:
        seconds: all of it, from the first evaluation to the last answer.
        update: an update, on average.
        micro_batch: the longest micro-batch.
        evaluation: of the validation rows, once.
        saving: a checkpoint.
        measuring: loss and answers of the test rows, after training.
        once: compiling, and the first pass through the frozen layers, whose outputs are stored.
        timing: spent on this estimate.
    """

    seconds: float
    update: float
    micro_batch: float
    evaluation: float
    saving: float
    measuring: float
    once: float
    timing: float

    def to_dict(self) -> dict[str, float]:
        """Plain data, for JSON."""
        return {key: round(value, 4) for key, value in asdict(self).items()}


def estimate_plan(session: Session, *, wanted: bool | None = None) -> Estimate | None:
    """The estimate of a planned run; None as for `estimate`.

    The self-check runs first, since it selects the optimizations. With ``wanted`` None, there is an estimate only for
    models for which both take a few seconds.
    """
    cpu = mx.default_device().type == mx.DeviceType.cpu
    if wanted is None:
        wanted = session.plan.parameters < (QUICK_CPU if cpu else QUICK_GPU)
    if not wanted or not _is_worthwhile(session):
        return None
    acceleration = accelerate(session, None, lambda note: None, store=_Nowhere(0, None))
    return estimate(session, make_engine(session, acceleration.training), acceleration)


def _is_worthwhile(session: Session) -> bool:
    """Whether the time is not given, and the run takes more than seconds.

    A run takes about 6 operations for each parameter and token (Kaplan et al., 2020).
    """
    plan = session.plan
    operations = 6.0 * plan.parameters * plan.tokens * plan.updates / plan.updates_per_epoch
    return session.config.max_time is None and session.world.alone and operations > SHORT


def estimate(
    session: Session,
    engine: Engine,
    acceleration: Acceleration,
    made: int = 0,
    updates: int | None = None,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Estimate | None:
    """How long the run takes from update ``made`` on until it has made ``updates``, with the state of ``engine`` left as it is.

    None if the time is given (``max_time``), with several workers, for a run of a few seconds, and for a model that
    cannot be timed.
    """
    if not _is_worthwhile(session):
        return None
    snapshot = engine.snapshot()
    try:
        return _Timing(session, engine, acceleration, clock).estimate(made, updates or session.plan.updates)
    except (
        RuntimeError,
        ValueError,
        MemoryError,
    ):  # from MLX; the run reports the problem, or succeeds without an estimate
        _LOG.debug("estimate", exc_info=True)
        return None
    finally:
        engine.restore(snapshot)
        engine.load_into_model().train()


class _Timing:
    """Times the parts of the run of ``session``."""

    def __init__(
        self, session: Session, engine: Engine, acceleration: Acceleration, clock: Callable[[], float]
    ) -> None:
        self._session, self._engine, self._path = session, engine, acceleration
        self._watch = Stopwatch(clock, MOST)
        self._training = _without_activations(acceleration.training)
        self._stats: BatchingStats = batching_stats(session.batching, session.sampler)
        targets = session.train_rows.scored / session.plan.tokens * (1 - self._stats.padding)
        self._share = max(targets, 1e-3)
        self._vocabulary = int(session.loaded.config.get("vocab_size") or VOCABULARY)
        self._updates = ShapeTimes(self._train, self._watch, lambda shape: 0.0)
        self._validation = self._forward_times(_without_activations(acceleration.validation))
        stores = acceleration.validation.boundary is not None
        self._plain = self._forward_times(acceleration.measuring) if stores else self._validation
        self._validation_rows = make_evaluator(session, acceleration.validation)
        self._test_rows = test_evaluator(session, acceleration.measuring)

    def estimate(self, made: int, updates: int) -> Estimate:
        """The parts, each timed within the remaining time limit, and their sum."""
        self._updates.begin(self._stats.shapes, self._session.plan.parameters)
        self._watch.allowed = min(MOST, SHARE * self._sum(made, updates, AnswerTimes(), 0.0).seconds)
        # Answers first: they take several times as long as their tokens suggest. When they were timed last, runs of a minute
        # left no time for that, and the estimates were a fifth too low.
        answering = self._answering()
        self._updates.measure(self._stats.shapes, 0.7)
        for times, rows in ((self._validation, self._validation_rows), (self._plain, self._test_rows)):
            if rows is not None:
                times.measure(rows.shapes, 0.5)
        return self._sum(made, updates, answering, self._applying())

    def _sum(self, made: int, updates: int, answering: AnswerTimes, applying: float) -> Estimate:
        """The estimate from what is known of the parts so far."""
        update, evaluation = self._update() + applying, self._evaluation()
        test_loss, saving, once = self._test_loss(), self._saving(), self._once()
        measuring = test_loss + answering.after
        costs = Costs(evaluation, saving, measuring, deque([(update, 1)]))
        work = replace(work_of(self._session), tokens=1.0)
        first = 0.0 if made else evaluation + test_loss + answering.before
        seconds = first + once + work.seconds(costs, made, updates)
        longest = max(map(self._updates.seconds, self._stats.shapes))
        return Estimate(seconds, update, longest, evaluation, saving, measuring, once, self._watch.spent)

    def _forward_times(self, path: ForwardPath) -> ShapeTimes:
        """The times of passes without gradients along ``path``; until one is timed, a third of a pass with gradients.

        The passes with gradients go through the trained layers alone where the outputs of the frozen ones are stored.
        """
        layers = (1 - self._frozen(path)) / (1 - self._frozen(self._training))
        return ShapeTimes(
            self._forward(path), self._watch, lambda shape: layers * self._updates.seconds(shape) / 3
        )

    def _train(self, shape: Shape) -> None:
        self._engine.loss(self._one(shape))
        mx.synchronize()

    def _one(self, shape: Shape) -> UpdateBatches:
        """An update of one micro-batch of ``shape``."""
        path = self._training
        packed = path.packing is not None and shape[1] == path.packing.width
        batch = random_batch(shape, self._share, packed=packed, vocabulary=self._vocabulary)
        arrays = path.arrays(batch, batch.n_targets)
        return UpdateBatches(0, batch.indices, [arrays], batch.n_tokens, batch.n_targets)

    def _forward(self, path: ForwardPath) -> Callable[[Shape], None]:
        """What computes a micro-batch of rows that are only evaluated."""
        model = self._session.loaded.model

        def loss_of(tree: Any, *arrays: mx.array) -> mx.array:
            model.update(tree)
            return path.loss(model, *arrays)

        function: Any = mx.compile(loss_of) if path.compiled else loss_of

        def run(shape: Shape) -> None:
            model.eval()
            batch = random_batch(shape, self._share, vocabulary=self._vocabulary)
            mx.eval(function(self._engine.tree(), *path.arrays(batch, 1.0)))

        return run

    def _update(self) -> float:
        """Seconds of the gradients of an update, on average."""
        sharing = self._session.batching.sharing
        saved = sharing.saved if sharing and self._training.form is not None else 0.0
        return (1 - saved) * self._updates.sum(self._stats.shapes) / self._stats.updates

    def _applying(self) -> float:
        """Seconds of the optimizer: what an update takes apart from the gradient of its micro-batch."""
        shape = min(self._stats.shapes)
        batches, alone = self._one(shape), self._updates.seconds(shape)

        def update() -> None:
            snapshot = self._engine.snapshot()
            self._engine.update(batches, 0.0)
            mx.eval(self._engine.snapshot())
            self._engine.restore(snapshot)

        if 3 * alone > max(self._watch.left, LATE):
            return 0.0
        self._watch.time(update)  # compiles
        again = [self._watch.time(update) for _ in range(2)]
        return max(statistics.fmean(again) - alone, 0.0)

    def _evaluation(self) -> float:
        rows = self._validation_rows
        times = 2.0 if self._session.config.average else 1.0  # the average is measured each time as well
        return 0.0 if rows is None else times * self._validation.sum(rows.shapes)

    def _test_loss(self) -> float:
        """Seconds of the loss of the test rows."""
        return 0.0 if self._test_rows is None else self._plain.sum(self._test_rows.shapes)

    def _answering(self) -> AnswerTimes:
        """Seconds of the answers to the test prompts."""
        examples = test_examples(self._session)
        if not examples:
            return AnswerTimes()
        self._engine.load_into_model()
        return times_of_answers(self._session, examples, self._watch, self._plain.sum)

    def _saving(self) -> float:
        """Seconds of a checkpoint: weights and two moments."""
        return FILES + 3 * n_bytes(self._session.loaded.model.trainable_parameters()) / BYTES

    def _once(self) -> float:
        """Seconds of compiling each shape, and of the frozen layers, whose outputs are computed once and stored."""
        stats, rows = self._stats, self._validation_rows
        valid = rows.shapes if rows else []
        compiling = self._updates.compiling_of(stats.shapes) + self._validation.compiling_of(valid)
        epochs = stats.updates / self._session.plan.updates_per_epoch
        stored = self._plain.sum(stats.shapes) / epochs * self._frozen(self._path.training)
        return compiling + stored + self._plain.sum(valid) * self._frozen(self._path.validation)

    def _frozen(self, path: ForwardPath) -> float:
        """The share of the layers whose outputs ``path`` stores."""
        return path.boundary.below / len(self._session.loaded.model.layers) if path.boundary else 0.0


@dataclass(frozen=True)
class _Blank:
    """Activations of zeros, which take as long as real ones."""

    boundary: PrefixBoundary

    def batch(self, indices: NDArray[np.int64], shape: tuple[int, int], places: Places | None) -> mx.array:
        return mx.zeros((*shape, self.boundary.width), self.boundary.dtype)


class _Nowhere(ActivationStore):
    """A store for activations that are never computed."""

    def make(self, layout: StoreLayout, key: Callable[[SharedFolder], str]) -> StoredActivations:
        shape = (layout.positions, layout.width)
        return StoredActivations(np.broadcast_to(np.zeros(1, layout.dtype), shape))


def _without_activations(path: ForwardPath) -> ForwardPath:
    """``path`` with activations that need not be computed."""
    return path if path.boundary is None else replace(path, activations=_Blank(path.boundary))
