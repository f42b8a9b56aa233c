"""Schedule, loss, batches and metrics for training scripts that use mlx-lm::

    from mlx_lm.tuner.trainer import train
    from mlxsched.integrations.mlx_lm import MetricsCallback, build_schedule, iterate_batches, loss

    schedule = build_schedule({"name": "warmup_linear", "peak": 1e-4, "steps": 500, "warmup": 50})
    optimizer = optim.AdamW(learning_rate=schedule)
    with MetricsCallback("metrics.jsonl") as metrics:
        train(model, optimizer, CacheDataset(rows), args=TrainingArgs(iters=500),
              loss=loss, iterate_batches=iterate_batches, training_callback=metrics)

They have mlx-lm's signatures. Use `loss` and `iterate_batches` together: the last batch of an epoch may be small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.callbacks import TrainingCallback

from mlxsched.errors import DataError, UsageError
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.runs.metrics import MetricsWriter
from mlxsched.schedules import from_dict, from_mlx_lm
from mlxsched.schedules.base import Schedule

PAD_TO = 32
"""Rows are padded to one more than a multiple of this, as in mlx-lm: fewer shapes mean fewer compilations."""


def build_schedule(schedule_config: Mapping[str, Any]) -> Schedule:
    """Build the schedule of an ``lr_schedule`` block of mlx-lm, or of a dictionary form of mlxsched.

    A block with ``arguments`` is taken for mlx-lm's and has mlx-lm's exact values (see `mlxsched.from_mlx_lm`).

    Raises:
        ScheduleError: a name, key or value is invalid.

    >>> build_schedule({"name": "cosine_decay", "arguments": [1e-5, 1000], "warmup": 10})(11)
    1e-05
    >>> build_schedule({"name": "warmup_linear", "peak": 1e-4, "steps": 1000, "warmup": 100})(550)
    5e-05
    """
    return from_mlx_lm(schedule_config) if "arguments" in schedule_config else from_dict(schedule_config)


def loss(model: nn.Module, batch: mx.array, lengths: mx.array) -> tuple[mx.array, mx.array]:
    """The mean cross-entropy over the targets of a batch, and their number; for mlx-lm's ``train(loss=...)``.

    Token i of a row is a target if offset <= i < length and i > 0. mlx-lm's own loss also scores token `length`, which is
    padding, and is NaN for a batch without targets; this one is 0 there.

    Args:
        model: maps tokens ``[rows, n]`` to logits ``[rows, n, vocabulary]``.
        batch: tokens ``[rows, n + 1]``.
        lengths: ``[rows, 2]``: offset (tokens of the prompt) and length of each row.
    """
    logits, labels = model(batch[:, :-1]), batch[:, 1:]
    position = mx.arange(1, batch.shape[1])
    scored = mx.logical_and(position >= lengths[:, :1], position < lengths[:, 1:])
    each = nn.losses.cross_entropy(logits.astype(mx.float32), labels)
    targets = scored.sum()
    return mx.where(scored, each, 0.0).sum() / mx.maximum(targets, 1), targets


def iterate_batches(
    dataset: Any,
    batch_size: int,
    max_seq_length: int,
    loop: bool = False,
    seed: int | None = None,
    comm_group: mx.distributed.Group | None = None,
    length_window: int = 1,
) -> Iterator[tuple[mx.array, mx.array]]:
    """Batches of random rows, each row once an epoch, for mlx-lm's ``train``; sorted by length for its ``evaluate``.

    mlx-lm's own function does not sort a ``CacheDataset`` by the length of its rows, drops the rows beyond a multiple of
    `batch_size`, and changes the order of the training rows when it evaluates.

    Args:
        dataset: mlx-lm's ``CacheDataset``, or any sequence of ``(tokens, offset)`` or of tokens.
        batch_size: rows of a batch, over all workers; the last batch of an epoch may have fewer.
        max_seq_length: longer rows are truncated.
        loop: start a new epoch, in a new order, when one ends.
        seed: determines the order. Without it, an endless iteration draws a seed from NumPy's global generator, which
            mlx-lm seeds; a single pass always has the same order, so that evaluations can be compared.
        comm_group: the workers; each receives its share of every batch, and empty rows fill up the last batch.
        length_window: group rows of similar length within this many batches, as ``--length-window`` of `mlxsched train`.
            Less padding, and a worse result where the rows of an update are alike in more than their length: sorting all
            rows of the bundled data raised the validation loss after 120 updates from 0.43 to 0.47.

    Yields:
        tokens ``[rows, length]``, padded with 0, and ``[rows, 2]``: offset and length.

    Raises:
        DataError: the data set is empty.
        UsageError: `batch_size` is not a multiple of the number of workers.
    """
    rank, workers = (comm_group.rank(), comm_group.size()) if comm_group is not None else (0, 1)
    if batch_size < 1 or batch_size % workers:
        raise UsageError(f"`batch_size` must be a multiple of the {workers} workers; got {batch_size}.")
    if len(dataset) == 0:
        raise DataError("the data set has no rows. Check the file that it was read from.")
    lengths = np.array([len(_row(dataset[index])[0]) for index in range(len(dataset))])
    order = np.random.default_rng(_seed(seed, loop))
    while True:
        indices = order.permutation(len(dataset))
        for batch in _batches(indices, lengths, batch_size, length_window if loop else None):
            rows = [_row(dataset[int(index)]) for index in batch]
            share = math.ceil(len(rows) / workers)
            yield _padded(rows[rank::workers], share, max(len(row) for row, _ in rows), max_seq_length)
        if not loop:
            return


def _batches(
    indices: np.ndarray, lengths: np.ndarray, batch_size: int, window: int | None
) -> Iterator[np.ndarray]:
    """``indices`` in batches of similar length within each ``window`` batches, which keep their random order; None: of all."""
    size = batch_size * window if window else len(indices)
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        ordered = part[np.argsort(lengths[part], kind="stable")]
        cut = [ordered[first : first + batch_size] for first in range(0, len(ordered), batch_size)]
        # The first row of each batch, in the order drawn, decides when the batch comes.
        place = {int(index): position for position, index in enumerate(part)}
        yield from sorted(cut, key=lambda batch: place[int(batch[0])])


def _seed(seed: int | None, loop: bool) -> int:
    if seed is not None:
        return seed
    return int(np.random.randint(2**31)) if loop else 0


def _row(item: Any) -> tuple[Sequence[int], int]:
    """The tokens and the offset of an item, which may be only tokens."""
    if len(item) == 2 and hasattr(item[0], "__len__"):
        return item[0], int(item[1])
    return item, 0


def _padded(
    rows: list[tuple[Sequence[int], int]], count: int, longest: int, limit: int
) -> tuple[mx.array, mx.array]:
    """`count` rows, filled up with empty ones, padded to the `longest` row of all workers."""
    width = min(1 + PAD_TO * math.ceil(longest / PAD_TO), limit)
    tokens, spans = np.zeros((count, width), np.int32), np.zeros((count, 2), np.int32)
    for index, (row, offset) in enumerate(rows):
        length = min(len(row), limit)
        tokens[index, :length] = row[:length]
        spans[index] = offset, length
    return mx.array(tokens), mx.array(spans)


class MetricsCallback(TrainingCallback):
    """Writes mlx-lm's reports, with the learning rate, as records of a ``metrics.jsonl``.

    Args:
        path: the file, to which records are appended.
        grad_accumulation_steps: the value given to mlx-lm, which counts iterations; the records count updates.
        wrapped_callback: another callback, called after this one.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        grad_accumulation_steps: int = 1,
        wrapped_callback: TrainingCallback | None = None,
    ) -> None:
        self._writer = MetricsWriter(Path(path))
        self._accumulation = grad_accumulation_steps
        self._wrapped = wrapped_callback
        self._targets = 0

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Write a ``train`` record for the last update; its loss is the mean since the previous report."""
        targets = int(train_info["trained_tokens"])
        self._writer.write(
            UpdateMade.partial_record(
                update=max(train_info["iteration"] // self._accumulation - 1, 0),
                loss=float(train_info["train_loss"]),
                lr=float(train_info["learning_rate"]),
                targets=targets - self._targets,
                tokens_per_second=float(train_info["tokens_per_second"]),
                peak_memory_gb=float(train_info["peak_memory"]),
            )
        )
        self._targets = targets
        if self._wrapped is not None:
            self._wrapped.on_train_loss_report(train_info)

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        """Write an ``eval`` record with the number of updates made before it."""
        value = float(val_info["val_loss"])
        self._writer.write(
            Evaluated.partial_record(
                update=val_info["iteration"] // self._accumulation,
                loss=value,
                perplexity=math.exp(min(value, 700.0)),
                seconds=float(val_info["val_time"]),
            )
        )
        if self._wrapped is not None:
            self._wrapped.on_val_loss_report(val_info)

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.sync()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
