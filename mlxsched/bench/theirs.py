"""mlx-lm's loop as it is shipped, on rows that are tokenized already.

Two things differ from a plain call of it, neither in its favour nor against it: targets are masked exactly (mlx-lm
scores one token too many in each row), and its batches hold the same rows, in the same order, as our updates.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.nn.layers.base import Module
from numpy.typing import NDArray

from mlxsched.bench.measured import LoopCost, Moment, PeakMemory
from mlxsched.data.rows import Rows
from mlxsched.training.optimizers import make_optimizer
from mlxsched.training.session import Session

Loop = Callable[..., None]  # with the signature of `mlx_lm.tuner.trainer.train`

_SEED = 0
_REPORTED = 10  # updates between mlx-lm's reports, its default


class _Records:
    """What mlx-lm's ``CacheDataset`` wraps: records of one key each, which ``process`` turns into tokens."""

    def __init__(self, rows: Rows, order: NDArray[np.int64]) -> None:
        self._rows, self._order = rows, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, place: int) -> dict[str, int]:
        return {"text": int(self._order[place])}

    def process(self, record: dict[str, int]) -> tuple[list[int], int]:
        return self._rows[record["text"]].tokens.tolist(), record["text"]


class _Batches:
    """mlx-lm's own batches; notes when each is asked for, and puts exact masks in place of lengths."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.moments: list[Moment] = []
        self.padded: list[int] = []

    def __call__(self, dataset: Any, **settings: Any) -> Iterator[tuple[mx.array, mx.array]]:
        from mlx_lm.tuner.trainer import iterate_batches

        make: Any = iterate_batches
        source = make(dataset, **settings)
        while True:
            self.moments.append(Moment.now())  # the batch before has been evaluated
            batch, places = next(source, (None, None))
            if batch is None:
                return
            self.padded.append(batch.shape[0] * (batch.shape[1] - 1))
            yield batch, self._mask(np.array(places)[:, 0], batch.shape[1] - 1)

    def _mask(self, indices: NDArray[Any], length: int) -> mx.array:
        mask = np.zeros((len(indices), length), np.float32)
        for line, index in zip(mask, indices, strict=True):
            targets = self._rows[int(index)].targets[1:]
            line[: len(targets)] = targets
        return mx.array(mask)


def _masked_loss(model: Module, batch: mx.array, mask: mx.array) -> tuple[mx.array, mx.array]:
    """mlx-lm's ``default_loss`` with the mask given."""
    logits = model(batch[:, :-1])
    losses = nn.losses.cross_entropy(logits, batch[:, 1:]) * mask
    count = mask.sum()
    return losses.astype(mx.float32).sum() / count, count


def _arranged(order: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """The rows put so that mlx-lm's shuffle of its batches brings them back into ``order``."""
    batches = order.reshape(-1, batch_size)
    np.random.seed(_SEED)  # the global state is what mlx-lm draws from
    arranged = np.empty_like(batches)
    arranged[np.random.permutation(len(batches))] = batches
    np.random.seed(_SEED)
    return arranged.reshape(-1)


def reported(session: Session) -> int:
    """Updates that one of the losses is the mean of."""
    return min(_REPORTED, session.plan.updates_per_epoch)


def train(session: Session, order: NDArray[np.int64], epochs: int, loop: Loop | None = None) -> LoopCost:
    """Train with mlx-lm, or another ``loop``, for ``epochs`` epochs, the first of them over ``order``."""
    per_epoch = len(order) // session.config.batch_size
    batches, losses, ends = _Batches(session.train_rows), [], []

    def report(train_info: dict[str, Any]) -> None:
        losses.append(train_info["train_loss"])
        ends.append(Moment.now())

    started, peak = Moment.now(), PeakMemory()
    _run(session, order, epochs * per_epoch, batches, report, loop)
    edges = [*batches.moments[: epochs * per_epoch], ends[-1]][::per_epoch]
    return LoopCost(
        epochs=[b.since(a) for a, b in itertools.pairwise(edges)],
        wall=edges[1].wall - edges[0].wall,
        start=edges[0].since(started),
        losses=losses[: session.plan.updates_per_epoch // reported(session)],
        peak=peak(),
        start_peak=0,
        padded=sum(batches.padded[:per_epoch]),
    )


def _run(
    session: Session,
    order: NDArray[np.int64],
    iterations: int,
    batches: _Batches,
    report: Callable[[dict[str, Any]], None],
    loop: Loop | None,
) -> None:
    """mlx-lm's training, which calls ``report`` with the mean loss of some updates."""
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.datasets import CacheDataset

    config = session.config
    optimizer = make_optimizer(config.optimizer, config.optimizer_arguments, False)
    optimizer.learning_rate = config.learning_rate
    callback: Any = TrainingCallback()
    callback.on_train_loss_report = report
    with _numpy_state(), _quiet(), tempfile.TemporaryDirectory() as directory:
        dataset = CacheDataset(_Records(session.train_rows, _arranged(order, config.batch_size)))
        arguments = trainer.TrainingArgs(
            batch_size=config.batch_size,
            iters=iterations,
            steps_per_report=reported(session) * config.grad_accumulation_steps,
            steps_per_save=iterations + 1,
            max_seq_length=config.max_seq_length,
            adapter_file=str(Path(directory) / "adapters.safetensors"),
            grad_accumulation_steps=config.grad_accumulation_steps,
        )
        (loop or trainer.train)(
            session.loaded.model, optimizer, dataset, args=arguments, loss=_masked_loss,
            iterate_batches=batches, training_callback=callback,
        )  # fmt: skip


def evaluate(session: Session) -> tuple[float, float]:
    """Seconds that mlx-lm's evaluation of the training rows takes, and the loss that it finds."""
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.datasets import CacheDataset

    config, rows = session.config, session.train_rows
    batches = _Batches(rows)
    dataset = CacheDataset(_Records(rows, np.arange(len(rows))))
    with _numpy_state(), _quiet():
        started = Moment.now()
        loss = trainer.evaluate(
            session.loaded.model, dataset, config.batch_size, -1, config.max_seq_length, loss=_masked_loss,
            iterate_batches=batches,
        )  # fmt: skip
        return Moment.now().since(started), loss


@contextlib.contextmanager
def _numpy_state() -> Iterator[None]:
    kept = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(kept)


def _quiet() -> contextlib.redirect_stdout[io.StringIO]:
    return contextlib.redirect_stdout(io.StringIO())
