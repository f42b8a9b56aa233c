"""The loss of a micro-batch: a weighted sum over its targets.

With weights ``1 / n`` on the ``n`` targets of an *update* and 0 elsewhere, the sum over all its
micro-batches is the mean loss of the update, and so are the gradients, however it was cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
from mlx.nn.layers.base import Module


@dataclass(frozen=True)
class LossOptions:
    """``label_smoothing`` in [0, 1) mixes in the uniform distribution (Szegedy et al., 2016);
    ``z_loss`` adds ``z_loss * logsumexp(logits)**2`` to each target (PaLM, 2022).

    ``fused`` decides only how: gathered logits go to ``mx.fast.cross_entropy``, which knows neither of the two.
    """

    label_smoothing: float = 0.0
    z_loss: float = 0.0
    fused: bool = False

    @property
    def bare(self) -> LossOptions:
        """The cross-entropy alone, computed in the same way."""
        return replace(self, label_smoothing=0.0, z_loss=0.0)


PLAIN_LOSS = LossOptions()


def target_losses(logits: mx.array, labels: mx.array, options: LossOptions = PLAIN_LOSS) -> mx.array:
    """Cross-entropy of each position in float32, ``logsumexp(z) - z[label]``; ``logits [..., V]``, ``labels [...]``."""
    logits = logits.astype(mx.float32)
    return losses_given(mx.logsumexp(logits, axis=-1), logits, labels, options)


def losses_given(normalizer: mx.array, logits: mx.array, labels: mx.array, options: LossOptions) -> mx.array:
    """`target_losses` where ``normalizer``, the logsumexp of the float32 ``logits``, is known."""
    score = mx.take_along_axis(logits, labels[..., None], axis=-1).squeeze(-1)
    if options.label_smoothing:
        score = (1 - options.label_smoothing) * score + options.label_smoothing * logits.mean(axis=-1)
    loss = normalizer - score
    return loss + options.z_loss * normalizer.square() if options.z_loss else loss


def weighted_loss(
    model: Module,
    inputs: mx.array,
    labels: mx.array,
    weights: mx.array,
    options: LossOptions = PLAIN_LOSS,
) -> mx.array:
    """``sum(weights * loss)`` over a micro-batch; all three arrays are ``[rows, length]``."""
    return masked_sum(target_losses(model(inputs), labels, options), weights)


def masked_sum(losses: mx.array, weights: mx.array) -> mx.array:
    """``sum(weights * losses)`` over the positions of weight above 0."""
    # A padded position can hold a non-finite loss in exotic models; 0 * inf would poison the sum.
    return mx.where(weights > 0, losses * weights, 0.0).sum()
