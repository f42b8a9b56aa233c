"""Cross-entropy whose backward pass is written out, whole or in chunks that never hold all logits."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import cast

import mlx.core as mx

from mlxsched.model.loss import LossOptions, losses_given, masked_sum

LogitsOf = Callable[[mx.array], mx.array]
_CHUNK_NUMBERS = 1 << 21  # logits in a chunk: 8 MB of float32
_LOG2_E = math.log2(math.e)


def chunk_rows(vocabulary: int, checkpoint: int = 0) -> int:
    """Rows of a chunk: at most two million logits (four on a GPU), but 32 rows (64) for the matrix products' sake.

    Where memory is so short that layers are computed again (``checkpoint``), at most 64.

    >>> chunk_rows(49152) in (32, 64), chunk_rows(488, checkpoint=1)
    (True, 64)
    """
    least = 32 if mx.default_device().type == mx.DeviceType.cpu else 64
    rows = max(least * (_CHUNK_NUMBERS // vocabulary // 32), least)
    return min(rows, 64) if checkpoint else rows


def summed_loss(
    logits: mx.array,
    labels: mx.array,
    weights: mx.array,
    options: LossOptions,
    *,
    differentiable: bool = True,
) -> mx.array:
    """The weighted sum of `target_losses` over ``logits`` ``[N, V]``, ``labels`` and ``weights`` ``[N]``."""
    loss, gradient = loss_and_gradient(mx.stop_gradient(logits), labels, weights, options)
    if not differentiable:
        return loss  # and the gradient is dead code
    return cast(mx.array, _with_gradient(loss, logits, gradient))


def loss_and_gradient(
    logits: mx.array, labels: mx.array, weights: mx.array, options: LossOptions
) -> tuple[mx.array, mx.array]:
    """`summed_loss` and its gradient to ``logits``, ``w * ((1 + 2 z lse) softmax - (1 - s) onehot - s / V)``.

    s is label smoothing and z the weight of the z-loss. Both come from one ``exp(logits - max)``, the dearest
    operation here: autodiff takes it once for the loss and again for the gradient.
    """
    numbers = logits.astype(mx.float32)
    powers, total, normalizer = _normalized(numbers)
    loss = masked_sum(losses_given(normalizer, numbers, labels, options), weights)
    slope = weights * (1 + 2 * options.z_loss * normalizer) if options.z_loss else weights
    wanted = _wanted(labels, logits.shape[-1], options.label_smoothing)
    gradient = powers * (slope[:, None] / total) - wanted * weights[:, None]
    return loss, mx.where(weights[:, None] > 0, gradient, 0.0).astype(logits.dtype)


def _normalized(logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """``exp(logits - max)``, its sums ``[N, 1]``, and the logsumexp of each row ``[N]``."""
    highest = logits.max(axis=-1, keepdims=True)
    powers = _exp(logits - highest)
    total = powers.sum(axis=-1, keepdims=True)
    return powers, total, (mx.log(total) + highest).squeeze(-1)


def _exp(x: mx.array) -> mx.array:
    """``exp(x)`` for x up to 0. Where MLX computes one number at a time, ``2 ** y`` takes 5 ns and ``exp`` 13."""
    scalar = mx.default_device().type == mx.DeviceType.cpu and sys.platform != "darwin"
    return mx.power(2.0, x * _LOG2_E) if scalar else mx.exp(x)


def _wanted(labels: mx.array, vocabulary: int, smoothing: float) -> mx.array:
    """The distribution to be predicted; a comparison instead of a scatter fuses with the rest into one pass."""
    correct = (mx.arange(vocabulary)[None] == labels[:, None]) * (1 - smoothing)
    return correct + smoothing / vocabulary if smoothing else correct


@mx.custom_function
def _with_gradient(loss: mx.array, states: mx.array, gradient: mx.array) -> mx.array:
    """``loss``, whose gradient with respect to ``states`` is known to be ``gradient``."""
    return loss


@_with_gradient.vjp
def _known(
    primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    loss, _states, gradient = primals
    return mx.zeros_like(loss), gradient * cotangent.astype(gradient.dtype), mx.zeros_like(gradient)


def chunked_loss(
    logits_of: LogitsOf,
    states: mx.array,
    labels: mx.array,
    weights: mx.array,
    options: LossOptions,
    *,
    rows: int,
    differentiable: bool = True,
) -> mx.array:
    """The weighted sum of losses over ``states`` ``[N, hidden]``, ``rows`` at a time.

    Each chunk's gradient to the states is computed beside its loss, so its logits can go at once. Valid as long as
    nothing in ``logits_of`` is trained. With ``differentiable`` False only the loss is computed.
    """
    total = mx.array(0.0)
    gradients: list[mx.array] = []
    constant = mx.stop_gradient(states)  # or autodiff would go through the gradient's own computation
    for start in range(0, states.shape[0], rows):
        part, *chunk = (array[start : start + rows] for array in (constant, labels, weights))
        if start:  # one chunk after the other, or all live at once
            part = mx.depends([part], [total, *gradients[-1:]])[0]
        if differentiable:
            loss, gradient = _chunk(logits_of, part, chunk[0], chunk[1], options)
            gradients.append(gradient)
        else:
            loss, _ = loss_and_gradient(logits_of(part), chunk[0], chunk[1], options)
        total = total + loss
    if not differentiable:
        return total
    known = mx.stop_gradient(mx.concatenate(gradients))
    return cast(mx.array, _with_gradient(mx.stop_gradient(total), states, known))


def _chunk(
    logits_of: LogitsOf, states: mx.array, labels: mx.array, weights: mx.array, options: LossOptions
) -> tuple[mx.array, mx.array]:
    """The loss of a chunk, and its gradient to ``states``."""

    def of(states: mx.array) -> tuple[mx.array, mx.array]:
        logits = logits_of(states)
        loss, gradient = loss_and_gradient(mx.stop_gradient(logits), labels, weights, options)
        # Only the gradient of the first value is used; the value itself is dead code, so that it keeps no logits.
        return cast(mx.array, _with_gradient(mx.array(0.0), logits, gradient)), loss

    (_, loss), gradient = mx.value_and_grad(of)(states)
    return loss, gradient
