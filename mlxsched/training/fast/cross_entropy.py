"""Cross-entropy whose backward pass is written out, whole or in chunks that never hold all logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import cast

import mlx.core as mx

from ..loss import LossOptions, target_losses

LogitsOf = Callable[[mx.array], mx.array]
LossOfLogits = Callable[[mx.array, mx.array, mx.array], mx.array]
_CHUNK_NUMBERS = 1 << 22  # logits in a chunk: 16 MB of float32


def chunk_rows(vocabulary: int) -> int:
    """Rows of a chunk: a multiple of 64 with at most four million logits, 64 at least.

    >>> chunk_rows(49152), chunk_rows(488)
    (64, 8576)
    """
    return max(_CHUNK_NUMBERS // vocabulary // 64 * 64, 64)


@cache
def summed_loss(options: LossOptions) -> LossOfLogits:
    """``f(logits [N, V], labels [N], weights [N])``: the weighted sum of `target_losses`.

    Its gradient is ``w * ((1 + 2 z lse) softmax - (1 - s) onehot - s / V)``, s being label smoothing and z the
    z-loss's weight: one pass over the logits and one number a row, where autodiff would make several.
    """

    @mx.custom_function
    def loss(logits: mx.array, labels: mx.array, weights: mx.array) -> mx.array:
        # A padded position can hold a non-finite loss in exotic models; 0 * inf would poison the sum.
        return mx.where(weights > 0, target_losses(logits, labels, options) * weights, 0.0).sum()

    @loss.vjp
    def backward(
        primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        logits, labels, weights = primals
        scale = cotangent * weights
        gradient = _logit_gradient(logits.astype(mx.float32), labels, scale, options)
        gradient = mx.where(weights[:, None] > 0, gradient, 0.0).astype(logits.dtype)
        return gradient, mx.zeros_like(labels), mx.zeros_like(weights)

    return cast(LossOfLogits, loss)


def _logit_gradient(logits: mx.array, labels: mx.array, scale: mx.array, options: LossOptions) -> mx.array:
    normalizer = mx.logsumexp(logits, axis=-1)
    weight = scale * (1 + 2 * options.z_loss * normalizer) if options.z_loss else scale
    # A comparison instead of a scatter: it fuses with the rest into one pass.
    correct = (mx.arange(logits.shape[-1])[None] == labels[:, None]) * (1 - options.label_smoothing)
    wanted = correct + options.label_smoothing / logits.shape[-1] if options.label_smoothing else correct
    return mx.exp(logits - normalizer[:, None]) * weight[:, None] - wanted * scale[:, None]


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
    loss_of = summed_loss(options)
    total = mx.array(0.0)
    gradients: list[mx.array] = []
    constant = mx.stop_gradient(states)  # or autodiff would go through the gradient's own computation
    for start in range(0, states.shape[0], rows):
        part, *rest = (array[start : start + rows] for array in (constant, labels, weights))
        if start:  # one chunk after the other, or all live at once
            part = mx.depends([part], [total, *gradients[-1:]])[0]
        if differentiable:
            loss, gradient = mx.value_and_grad(lambda h, rest=rest: loss_of(logits_of(h), *rest))(part)
            gradients.append(gradient)
        else:
            loss = loss_of(logits_of(part), *rest)
        total = total + loss
    if not differentiable:
        return total
    known = mx.stop_gradient(mx.concatenate(gradients))
    return cast(mx.array, _with_gradient(mx.stop_gradient(total), states, known))
