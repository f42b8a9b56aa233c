"""The way of a micro-batch through the model: which short cuts it takes, and the arrays that those need."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch
from mlxsched.data.batching.packing import Packing
from mlxsched.model.fast.attention import Blocks, in_blocks
from mlxsched.model.fast.checkpointing import checkpointed
from mlxsched.model.fast.cross_entropy import chunked_loss, summed_loss
from mlxsched.model.fast.frozen_prefix import PrefixBoundary, prefix_replaced
from mlxsched.model.fast.head import Head, gathered_logits, gathered_states, logits_of_states
from mlxsched.model.fast.packed_mask import kept_apart
from mlxsched.model.fast.prefix_activations import PrefixActivations
from mlxsched.model.loss import PLAIN_LOSS, LossOptions, weighted_loss

Arrays = tuple[mx.array, ...]


@dataclass(frozen=True)
class ForwardPath:
    """Short cuts of a run; without any it is the plain path.

    ``head``: loss only at targets. ``chunk``: that many targets' logits at a time (None: all). ``tap``: start from
    stored states. ``checkpoint``: recompute every so many-th layer in the backward pass (0: none). ``blocks``: attention
    in blocks of queries (None: whole). ``compiled``: one graph for each shape. ``packing``: several rows in a line.
    """

    head: Head | None = None
    chunk: int | None = None
    tap: PrefixBoundary | None = None
    checkpoint: int = 0
    blocks: Blocks | None = None
    compiled: bool = False
    packing: Packing | None = None

    def loss(
        self, options: LossOptions = PLAIN_LOSS, *, differentiable: bool = True
    ) -> Callable[..., mx.array]:
        """The loss function of ``(model, *arrays)`` for arrays of `layout`."""

        def loss(model: Module, *arrays: mx.array) -> mx.array:
            rest = list(arrays)
            with ExitStack() as stack:
                if self.tap is not None:
                    stack.enter_context(prefix_replaced(self.tap, rest.pop()))
                if len(rest) > (3 if self.head is None else 4):  # lines of several rows
                    stack.enter_context(kept_apart(model, rest.pop()))
                blocks = self.blocks if differentiable else self.forward_blocks
                stack.enter_context(in_blocks(blocks))
                stack.enter_context(checkpointed(model, self.checkpoint if differentiable else 0, blocks))
                if self.head is None:
                    return weighted_loss(model, arrays[0], arrays[1], arrays[2], options)
                inputs, positions, labels, weights = arrays[:4]
                if self.chunk is None:
                    logits = gathered_logits(model, self.head, inputs, positions)
                    return summed_loss(logits, labels, weights, options, differentiable=differentiable)
                states = gathered_states(model, self.head, inputs, positions)
            logits_of = logits_of_states(model, self.head, inputs)
            chunks: dict[str, Any] = {"rows": self.chunk, "differentiable": differentiable}
            return chunked_loss(logits_of, states, labels, weights, options, **chunks)

        return loss

    @property
    def forward_blocks(self) -> Blocks | None:
        """The blocks of a pass without gradients: none where MLX has a fused kernel for it and memory is not short."""
        fused = mx.default_device().type != mx.DeviceType.cpu
        return None if self.blocks and self.blocks.kept and fused else self.blocks

    @property
    def source(self) -> PrefixBoundary | None:
        """The tap as its states are computed: without gradients."""
        return replace(self.tap, blocks=self.forward_blocks) if self.tap else None

    def layout(self, states: PrefixActivations | None = None) -> Layout:
        """How rows become arrays on this route."""
        return Layout(self.head is not None, self.packing, states)


@dataclass(frozen=True)
class Layout:
    """Makes arrays of a batch: inputs, what is to be predicted, and, if there are any, segments and states."""

    at_targets: bool
    packing: Packing | None
    states: PrefixActivations | None

    def __call__(self, batch: Batch, n_targets: float) -> Arrays:
        """The arrays of ``batch``, its weights divided by ``n_targets``."""
        weights = batch.weights / np.float32(n_targets)
        columns: tuple[NDArray[Any], ...] = (batch.labels, weights)
        if self.at_targets:
            columns = at_targets(batch.labels, weights)
        arrays = [mx.array(batch.inputs), *map(mx.array, columns)]
        if self.packing is not None and batch.segments is not None:
            arrays.append(mx.array(batch.segments))
        if self.states is not None:
            arrays.append(self.states.batch(batch.indices, batch.shape, batch.places))
        return tuple(arrays)


PLAIN = ForwardPath()


def at_targets(labels: NDArray[np.int32], weights: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Flat positions, labels and weights of the targets, padded with weight 0 to one of few sizes."""
    positions = np.flatnonzero(weights)
    padded = np.zeros(padded_targets(len(positions), weights.size), np.int32)
    padded[: len(positions)] = positions
    chosen = weights.reshape(-1)[padded]
    chosen[len(positions) :] = 0
    return padded, labels.reshape(-1)[padded], chosen


def padded_targets(count: int, limit: int) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96, ... that holds ``count``, but not more than ``limit``.

    >>> [padded_targets(n, 300) for n in (0, 17, 33, 250)]
    [16, 24, 48, 256]
    """
    size = 16
    while size < count:
        size = size * 3 // 2 if size & (size - 1) == 0 else size // 3 * 4
    return min(size, limit)


@dataclass(frozen=True)
class Way:
    """A loss function of ``(model, *arrays)``, the layout that makes those arrays from a batch, and whether to compile.

    ``route`` is what they were made from.
    """

    loss: Callable[..., mx.array]
    layout: Layout
    compiled: bool
    route: ForwardPath


def bound(
    route: ForwardPath,
    states: PrefixActivations | None,
    options: LossOptions = PLAIN_LOSS,
    differentiable: bool = False,
) -> Way:
    loss = route.loss(options, differentiable=differentiable)
    taken = route if differentiable else replace(route, checkpoint=0, blocks=route.forward_blocks)
    return Way(loss, route.layout(states), route.compiled, taken)


PLAIN_WAY = bound(PLAIN, None)
