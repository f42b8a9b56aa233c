"""Alternative forward paths with the same result, and parts of a step on which they can be compared quickly.

Which of them is fastest depends on the device and the MLX release, so nothing is hard-coded here:
`mlxsched.training.tuning` times them. The first of each kind is the default, which was chosen on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.data.batching.batches import Batch
from mlxsched.data.batching.grid import Shape
from mlxsched.model.fast.attention import Call, calls_of, in_blocks
from mlxsched.model.fast.cross_entropy import can_fuse, chunked_loss, summed_loss
from mlxsched.model.fast.forward_path import Arrays, ForwardPath, padded_targets
from mlxsched.model.fast.gated_delta import can_fuse_delta, deltas_of, fused_gated_delta, recurrence
from mlxsched.model.fast.head import gathered_hidden, logits_of_hidden
from mlxsched.model.fast.patching import dropout_off

Paths = dict[str, ForwardPath]
Piece = Callable[[], None]
_ARRAYS = 4  # of float32 logits or scores that autodiff keeps at once


def attentions(path: ForwardPath) -> Paths:
    """Attention in blocks of queries, or unblocked; empty if blocks are not used."""
    return {"in blocks": path, "whole": replace(path, blocks=None)} if path.blocks else {}


def deltas(path: ForwardPath) -> Paths:
    """The recurrence of gated delta nets by mlx-lm's loop or by MLX's function."""
    # A layer that is recomputed is traced a second time, outside of what `ForwardPath.loss` replaces.
    if path.checkpoint or not can_fuse_delta():
        return {}
    return {"token by token": path, "mx.fast": replace(path, fused_delta=True)}


def cross_entropies(path: ForwardPath) -> Paths:
    """Our cross-entropy or MLX's own kernel, each in chunks or whole; empty if the head is trained or unknown."""
    if not path.chunk:
        return {}
    found = {"in chunks": path, "whole": replace(path, chunk=None)}
    if can_fuse(path.options):
        fused = replace(path, options=replace(path.options, fused=True))
        found |= {"mx.fast in chunks": fused, "mx.fast": replace(fused, chunk=None)}
    return found


def steps(path: ForwardPath) -> Paths:
    """A step that is compiled for each shape, or not."""
    return {"compiled": path, "eager": replace(path, compiled=False)} if path.compiled else {}


@dataclass(frozen=True)
class AttentionPart:
    """The causal attention of all layers of ``model`` in a micro-batch, forward and backward, on random numbers."""

    model: Module
    _known: dict[Shape, list[Call]] = field(default_factory=dict)

    def of(self, path: ForwardPath, shape: Shape) -> Piece:
        """A function that computes the attention of one micro-batch with ``path``: each kind of layer once."""
        calls = list(dict.fromkeys(self._calls(shape)))
        inputs = [[mx.random.normal(each, call.dtype) for each in call.shapes] for call in calls]
        mx.eval(inputs)

        def total(arrays: list[list[mx.array]]) -> mx.array:
            with in_blocks(path.blocks):
                parts = [
                    mx.fast.scaled_dot_product_attention(*three, scale=call.scale, mask="causal")
                    .square()
                    .sum()
                    for three, call in zip(arrays, calls, strict=True)
                ]
            return mx.stack(parts).sum()

        return _piece(path, total, inputs)

    def needs(self, path: ForwardPath, shape: Shape) -> int:
        """Bytes that `of` may allocate in addition to the plan: all scores of a layer without blocks."""
        heads = max((call.shapes[0][1] for call in self._calls(shape)), default=0)
        return 0 if path.blocks else 4 * _ARRAYS * heads * shape[0] * shape[1] ** 2

    def cut(self, path: ForwardPath, shapes: list[Shape]) -> list[Shape]:
        """Those of ``shapes`` whose attention ``path`` computes in more than one block."""
        blocks = path.blocks
        if blocks is None:
            return []
        long = [shape for shape in shapes if len(blocks.edges(shape[1])) > 1]
        return long if long and self._calls(long[0]) else []

    def _calls(self, shape: Shape) -> list[Call]:
        """The attention of each layer; tracing a large model takes a while."""
        if shape not in self._known:
            self._known[shape] = calls_of(self.model, shape)
        return self._known[shape]


@dataclass(frozen=True)
class DeltaPart:
    """The recurrence of the gated delta nets of ``model`` in a micro-batch, forward and backward, on random numbers."""

    model: Module

    def of(self, path: ForwardPath, shape: Shape) -> Piece:
        """A function that computes it for a micro-batch of ``shape`` with ``path``: each kind of layer once."""
        calls = list(dict.fromkeys(deltas_of(self.model, shape)))
        inputs = [[mx.random.uniform(0, 0.1, *one) for one in zip(*call, strict=True)] for call in calls]
        mx.eval(inputs)

        def total(arrays: list[list[mx.array]]) -> mx.array:
            with fused_gated_delta(path.fused_delta):
                return mx.stack([recurrence(each).square().sum() for each in arrays]).sum()

        return _piece(path, total, inputs)

    def needs(self, path: ForwardPath, shape: Shape) -> int:
        """Zero: little compared with a step."""
        return 0


@dataclass(frozen=True)
class StepPart:
    """The gradients of whole micro-batches; ``batch_of`` makes one of a shape."""

    model: Module
    batch_of: Callable[[Shape], Batch]

    def of(self, path: ForwardPath, shape: Shape) -> Piece:
        """A function that computes the gradient of a micro-batch of ``shape`` with ``path``."""
        batch = self.batch_of(shape)
        whole = replace(path, boundary=None, activations=None)
        return self.along(whole, [whole.arrays(batch, batch.n_targets)])

    def needs(self, path: ForwardPath, shape: Shape) -> int:
        """Zero: the plan counts whole steps already."""
        return 0

    def along(self, path: ForwardPath, micro_batches: list[Arrays]) -> Piece:
        """A function that computes the gradients of ``micro_batches``, laid out by ``path``, one by one."""
        parameters = self.model.trainable_parameters()

        def loss_of(tree: Any, *arrays: mx.array) -> mx.array:
            self.model.update(tree)
            return path.loss(self.model, *arrays)

        both: Any = mx.value_and_grad(loss_of)
        compute = mx.compile(both) if path.compiled else both

        def run() -> None:
            with dropout_off(self.model):
                try:
                    for arrays in micro_batches:
                        mx.eval(compute(parameters, *arrays))
                finally:
                    self.model.update(parameters)  # tracing left placeholders

        return run


@dataclass(frozen=True)
class LossPart:
    """The projection onto the vocabulary of ``share`` of the positions, and the loss, forward and backward."""

    model: Module
    share: float

    def of(self, path: ForwardPath, shape: Shape) -> Piece:
        """A function that computes the loss of a micro-batch of ``shape`` with ``path`` from random hidden states."""
        head, options = path.head, path.options
        assert head is not None  # noqa: S101  there are candidates only for gathered logits
        count = self._count(shape)
        inputs = mx.zeros((1, 2), mx.int32)
        like = gathered_hidden(self.model, head, inputs, mx.zeros(1, mx.int32))  # never computed
        hidden = mx.random.normal((count, like.shape[-1]), like.dtype)
        labels, weights = mx.arange(count) % head.vocabulary, mx.full(count, 1 / count)
        mx.eval(hidden, labels, weights)
        logits_of = logits_of_hidden(self.model, head, inputs)

        def loss(hidden: mx.array) -> mx.array:
            if path.chunk is None:
                return summed_loss(logits_of(hidden), labels, weights, options)
            return chunked_loss(logits_of, hidden, labels, weights, options, rows=path.chunk)

        return _piece(path, loss, hidden)

    def needs(self, path: ForwardPath, shape: Shape) -> int:
        """Bytes that `of` may allocate in addition to the plan: all logits without chunks."""
        vocabulary = path.head.vocabulary if path.head else 0
        return 0 if path.chunk else 4 * _ARRAYS * self._count(shape) * vocabulary

    def _count(self, shape: Shape) -> int:
        return padded_targets(round(self.share * shape[0] * shape[1]), shape[0] * shape[1])


def _piece(path: ForwardPath, function: Callable[[Any], mx.array], argument: Any) -> Piece:
    """A function that computes value and gradient of ``function``, compiled if ``path`` is."""
    both: Any = mx.value_and_grad(function)
    compute = mx.compile(both) if path.compiled else both
    return lambda: mx.eval(compute(argument))
