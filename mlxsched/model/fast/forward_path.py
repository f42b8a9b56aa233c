"""The forward path of micro-batches: which optimizations they take, and the arrays that those need."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, Places
from mlxsched.data.batching.packing import Packing
from mlxsched.model.fast.attention import Blocks, in_blocks
from mlxsched.model.fast.checkpointing import checkpointed
from mlxsched.model.fast.cross_entropy import chunked_loss, summed_loss
from mlxsched.model.fast.frozen_prefix import PrefixBoundary, prefix_replaced
from mlxsched.model.fast.gated_delta import fused_gated_delta
from mlxsched.model.fast.growing_cache import Form, with_caches
from mlxsched.model.fast.head import Head, gathered_hidden, gathered_logits, logits_of_hidden
from mlxsched.model.fast.packed_mask import packed_attention
from mlxsched.model.loss import PLAIN_LOSS, LossOptions, weighted_loss

Arrays = tuple[mx.array, ...]


class Activations(Protocol):
    """Stored outputs of the frozen layers (`PrefixActivations`)."""

    def batch(self, indices: NDArray[np.int64], shape: tuple[int, int], places: Places | None) -> mx.array:
        """Activations ``[*shape, width]`` of the rows ``indices``, laid out like their tokens."""


@dataclass(frozen=True)
class ForwardPath:
    """How micro-batches go through a model. Without arguments it is the plain path: the whole model, all logits.

    `arrays` lays a batch out, and ``loss(model, *arrays)`` is its weighted loss. Every path gives the plain path's
    loss and gradients but for rounding; `SelfCheck` compares them before a run takes one.

    Args:
        head: compute logits only at targets, with this projection.
        chunk: at most that many targets' logits exist at once; None for all. Needs a frozen ``head``.
        boundary: start from stored activations here, in place of running the frozen layers below.
        checkpoint: recompute every n-th layer in the backward pass; 0 for none.
        blocks: attention in blocks of queries; None for all queries at once.
        fused_delta: the recurrence of gated delta nets by MLX's own function.
        compiled: callers compile one graph for each shape.
        packing: lines hold several rows each.
        activations: where the activations at ``boundary`` come from.
        options: label smoothing and z-loss, and whose kernel computes the cross-entropy.
        differentiable: whether gradients are wanted.
        scaled: multiply weights by `loss_scale`, for models in float16.
        form: what the model leaves in its caches behind a prefix that rows share; None: it is not shared.
        fixed: how many arrays of the state behind that prefix, counted from the first, depend on nothing trained.
        resumed: where the second pass over that prefix begins, at the first trained layer; None: at its inputs.
    """

    head: Head | None = None
    chunk: int | None = None
    boundary: PrefixBoundary | None = None
    checkpoint: int = 0
    blocks: Blocks | None = None
    fused_delta: bool = False
    compiled: bool = False
    packing: Packing | None = None
    activations: Activations | None = None
    options: LossOptions = PLAIN_LOSS
    differentiable: bool = True
    scaled: bool = False
    form: Form | None = None
    fixed: int = 0
    resumed: PrefixBoundary | None = None

    def arrays(self, batch: Batch, n_targets: float) -> Arrays:
        """The arguments of `loss` for ``batch``, its weights multiplied by ``loss_scale(n_targets) / n_targets``.

        With a head: inputs ``[rows, length]``, then positions, labels and weights of the targets, each ``[N]``.
        Without: inputs, labels and weights, each ``[rows, length]``. Behind them, where the path uses them, the
        segments of packed lines ``[rows, length]`` and the activations ``[rows, length, width]``.
        """
        weights = batch.weights / np.float32(n_targets / self.loss_scale(n_targets))
        columns: tuple[NDArray[Any], ...] = (batch.labels, weights)
        if self.head is not None:
            columns = at_targets(batch.labels, weights)
        arrays = [mx.array(batch.inputs), *map(mx.array, columns)]
        if self.packing is not None and batch.segments is not None:
            arrays.append(mx.array(batch.segments))
        if self.activations is not None:
            arrays.append(self.activations.batch(batch.indices, batch.shape, batch.places))
        return tuple(arrays)

    def loss_scale(self, n_targets: float) -> float:
        """What the loss and gradients of an update of ``n_targets`` targets are multiplied by; 1 in most models.

        A weight of 1/65,536 pushes float16 gradients below the smallest normal number, 6e-5: they were off by 5.4%, and
        by 0.24% with this factor (`benchmarks/precision.py`).
        The largest power of two below ``n_targets`` brings weights to between 1/2 and 1, and dividing the float32 sums
        by it afterwards is exact.

        >>> ForwardPath(scaled=True).loss_scale(20_000), PLAIN.loss_scale(20_000)
        (16384.0, 1.0)
        """
        return 2.0 ** math.floor(math.log2(max(n_targets, 1))) if self.scaled else 1.0

    def loss(self, model: Module, *arrays: mx.array, caches: list[Any] | None = None) -> mx.array:
        """The weighted sum of the losses of a micro-batch, given as `arrays` lays it out.

        ``caches`` hold what the rows continue, and receive what they leave (`growing_caches`). Inputs alone, without
        targets, only fill the caches. Raises ``NotApplicable`` where ``model`` does not work as an optimization expects.
        """
        rest = list(arrays)
        with ExitStack() as stack:
            if self.boundary is not None:
                stack.enter_context(prefix_replaced(self.boundary, rest.pop()))
            if len(rest) > (3 if self.head is None else 4):  # packed lines come with their segments
                stack.enter_context(packed_attention(model, rest.pop()))
            if caches is not None:
                stack.enter_context(with_caches(model, caches))
            stack.enter_context(in_blocks(self.blocks))
            stack.enter_context(fused_gated_delta(self.fused_delta))
            stack.enter_context(checkpointed(model, self.checkpoint, self.blocks))
            if len(rest) == 1:
                model(arrays[0])
                return mx.array(0.0)
            if self.head is None:
                return weighted_loss(model, arrays[0], arrays[1], arrays[2], self.options)
            inputs, positions, labels, weights = arrays[:4]
            grad = self.differentiable
            if self.chunk is None:
                logits = gathered_logits(model, self.head, inputs, positions)
                return summed_loss(logits, labels, weights, self.options, differentiable=grad)
            hidden = gathered_hidden(model, self.head, inputs, positions)
        # The head runs once for each chunk, outside of the patched forward pass above.
        logits_of = logits_of_hidden(model, self.head, inputs)
        return chunked_loss(
            logits_of, hidden, labels, weights, self.options, rows=self.chunk, differentiable=grad
        )

    def without_gradients(self) -> ForwardPath:
        """This path for a pass without gradients: nothing is kept for a backward pass, so nothing is recomputed."""
        return replace(self, differentiable=False, checkpoint=0, blocks=self._forward_blocks)

    @property
    def frozen_boundary(self) -> PrefixBoundary | None:
        """The boundary as its activations are computed: the frozen layers never see a gradient."""
        return replace(self.boundary, blocks=self._forward_blocks) if self.boundary else None

    @property
    def _forward_blocks(self) -> Blocks | None:
        # A GPU has a fused attention kernel for the forward pass, faster and leaner than blocks. Lean blocks stay:
        # they were chosen because memory is short, and packed lines with their array mask are never fused.
        fused = mx.default_device().type != mx.DeviceType.cpu
        return None if self.blocks and self.blocks.kept and fused else self.blocks

    def describe(self) -> dict[str, Any]:
        """The optimizations as plain data; ``run.json`` has them under ``short_cuts``.

        ``loss_at_targets``: logits only at targets. ``chunk``: targets whose logits exist at once, None for all.
        ``fused_cross_entropy``: with MLX's own kernel.
        ``frozen_states``: the frozen layers' outputs are stored. ``checkpoint``: every n-th layer is recomputed in
        the backward pass, 0 for none. ``attention_blocks``: least queries of a block of attention, None for all
        queries at once. ``fused_delta``: the recurrence of gated delta nets by MLX's own function. ``compiled``: one
        graph for each shape. ``packed``: tokens of a packed line, None for one row a line. ``shared_prefix``: what rows begin with in common may be read once.

        >>> any(PLAIN.describe().values())
        False
        """
        return {
            "loss_at_targets": self.head is not None,
            "chunk": self.chunk,
            "fused_cross_entropy": self.options.fused,
            "frozen_states": self.boundary is not None,
            "checkpoint": self.checkpoint,
            "attention_blocks": None if self.blocks is None else self.blocks.least,
            "fused_delta": self.fused_delta,
            "compiled": self.compiled,
            "packed": None if self.packing is None else self.packing.width,
            "shared_prefix": self.form is not None,
        }


PLAIN = ForwardPath()


def at_targets(labels: NDArray[np.int32], weights: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Flat positions, labels and weights ``[N]`` of the targets of ``[rows, length]`` arrays.

    N is padded with weight 0 to one of few sizes, because each size is a graph of its own to trace and keep.
    """
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
