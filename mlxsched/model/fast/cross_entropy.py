"""Cross-entropy with an analytic backward pass, whole or in chunks so that the logits never exist all at once.

A micro-batch of 4 x 512 tokens and a vocabulary of 151,936 has 1.2 GB of float32 logits, and autodiff keeps three to
four arrays of that size. The gradient to the logits is known in closed form, so a chunk's loss and gradient to the
hidden states are computed together and its logits are dropped: 0.41 to 0.57 of the peak at the same speed.
`mx.checkpoint` around each chunk would do the same at 0.82 of the speed, because it computes the logits twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import mlx.core as mx

from mlxsched.model.fast.exponential import exp
from mlxsched.model.loss import LossOptions, losses_given, masked_sum

LogitsOf = Callable[[mx.array], mx.array]
_CHUNK_LOGITS = 1 << 21  # 8 MB of float32


def chunk_rows(vocabulary: int, checkpoint: int = 0) -> int:
    """Targets in a chunk: as many as make two million logits (four on a GPU), in multiples of 32 (64).

    At least one multiple, because matrix products of fewer rows waste the device. Where memory is so short that
    layers are recomputed (``checkpoint``), at most 64.

    >>> chunk_rows(49152) in (32, 64), chunk_rows(488, checkpoint=1)
    (True, 64)
    """
    least = 32 if mx.default_device().type == mx.DeviceType.cpu else 64
    rows = max(least * (_CHUNK_LOGITS // vocabulary // 32), least)
    return min(rows, 64) if checkpoint else rows


def summed_loss(
    logits: mx.array,
    labels: mx.array,
    weights: mx.array,
    options: LossOptions,
    *,
    differentiable: bool = True,
) -> mx.array:
    """The weighted sum of `target_losses` over ``logits`` ``[N, V]`` with ``labels`` and ``weights`` ``[N]``."""
    loss, gradient = loss_and_gradient(mx.stop_gradient(logits), labels, weights, options)
    if not differentiable:
        return loss  # nothing depends on the gradient, so it is never computed
    return cast(mx.array, _with_gradient(loss, logits, gradient))


def loss_and_gradient(
    logits: mx.array, labels: mx.array, weights: mx.array, options: LossOptions
) -> tuple[mx.array, mx.array]:
    """`summed_loss` and its gradient to ``logits`` ``[N, V]``: ``w * ((1 + 2 z lse) softmax - (1 - s) onehot - s / V)``.

    w is a target's weight, s label smoothing, z the weight of the z-loss and lse the logsumexp. Loss and gradient
    share one ``exp(logits - max)``, the most expensive operation here; autodiff computes it twice.
    """
    if options.fused:
        return _fused(logits, labels, weights)
    numbers = logits.astype(mx.float32)
    powers, total, normalizer = _normalized(numbers)
    loss = masked_sum(losses_given(normalizer, numbers, labels, options), weights)
    slope = weights * (1 + 2 * options.z_loss * normalizer) if options.z_loss else weights
    goal = _goal(labels, logits.shape[-1], options.label_smoothing)
    gradient = powers * (slope[:, None] / total) - goal * weights[:, None]
    return loss, mx.where(weights[:, None] > 0, gradient, 0.0).astype(logits.dtype)


def can_fuse(options: LossOptions) -> bool:
    """Whether this MLX has ``mx.fast.cross_entropy``, and ``options`` ask for nothing that it does not compute."""
    return hasattr(mx.fast, "cross_entropy") and options.bare == options


def _fused(logits: mx.array, labels: mx.array, weights: mx.array) -> tuple[mx.array, mx.array]:
    """As `loss_and_gradient`, with the kernel of MLX.

    Its documentation (0.32.4) says that it is fused on Metal and CUDA and sums in float32 there, and that the CPU sums in
    the dtype of the logits. It was run on the CPU only.
    """
    cpu = mx.default_device().type == mx.DeviceType.cpu

    def of(logits: mx.array) -> mx.array:
        losses = mx.fast.cross_entropy(logits.astype(mx.float32) if cpu else logits, labels)
        return masked_sum(losses, weights)

    loss, gradient = mx.value_and_grad(of)(logits)
    return loss, mx.where(weights[:, None] > 0, gradient, 0.0).astype(logits.dtype)


def _normalized(logits: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """``exp(logits - max)`` ``[N, V]``, its sums ``[N, 1]``, and the logsumexp of each row ``[N]``."""
    highest = logits.max(axis=-1, keepdims=True)
    powers = exp(logits - highest)
    total = powers.sum(axis=-1, keepdims=True)
    return powers, total, (mx.log(total) + highest).squeeze(-1)


def _goal(labels: mx.array, vocabulary: int, smoothing: float) -> mx.array:
    """The distribution to be predicted ``[N, V]``. A comparison fuses with what follows, where a scatter would not."""
    correct = (mx.arange(vocabulary)[None] == labels[:, None]) * (1 - smoothing)
    return correct + smoothing / vocabulary if smoothing else correct


@mx.custom_function
def _with_gradient(loss: mx.array, hidden: mx.array, gradient: mx.array) -> mx.array:
    """``loss``, whose gradient with respect to ``hidden`` is known to be ``gradient``."""
    return loss


@_with_gradient.vjp
def _known(
    primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    loss, _hidden, gradient = primals
    return mx.zeros_like(loss), gradient * cotangent.astype(gradient.dtype), mx.zeros_like(gradient)


def chunked_loss(
    logits_of: LogitsOf,
    hidden: mx.array,
    labels: mx.array,
    weights: mx.array,
    options: LossOptions,
    *,
    rows: int,
    differentiable: bool = True,
) -> mx.array:
    """The weighted sum of losses over ``hidden`` ``[N, width]``, ``rows`` targets at a time.

    Each chunk's gradient to the hidden states is computed together with its loss, so its logits can be freed at once.
    Valid only while nothing in ``logits_of`` is trained. With ``differentiable`` False only the loss is computed.
    """
    total = mx.array(0.0)
    gradients: list[mx.array] = []
    constant = mx.stop_gradient(hidden)  # or autodiff would differentiate the gradient's own computation
    for start in range(0, hidden.shape[0], rows):
        part, *chunk = (array[start : start + rows] for array in (constant, labels, weights))
        if start:  # without this dependency MLX computes all chunks at once, and holds all their logits
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
    return cast(mx.array, _with_gradient(mx.stop_gradient(total), hidden, known))


def _chunk(
    logits_of: LogitsOf, hidden: mx.array, labels: mx.array, weights: mx.array, options: LossOptions
) -> tuple[mx.array, mx.array]:
    """The loss of a chunk, and its gradient to ``hidden`` ``[n, width]``."""

    def of(hidden: mx.array) -> tuple[mx.array, mx.array]:
        logits = logits_of(hidden)
        loss, gradient = loss_and_gradient(mx.stop_gradient(logits), labels, weights, options)
        # Only the gradient of the first value is used. The value is a constant, so that it holds on to no logits;
        # the loss is returned with it.
        return cast(mx.array, _with_gradient(mx.array(0.0), logits, gradient)), loss

    (_, loss), gradient = mx.value_and_grad(of)(hidden)
    return loss, gradient
