"""An estimate of the memory that a training takes, from the shape of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FLOAT = 4  # bytes: activations of LoRA layers are promoted to float32


@dataclass(frozen=True)
class ModelShape:
    """What the size of activations depends on."""

    hidden: int
    intermediate: int
    heads: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a model's ``config.json``; unusual names fall back to the common ratios."""
        config = {**config, **(config.get("text_config") or {})}
        hidden = int(config.get("hidden_size") or config.get("n_embd") or config.get("d_model") or 1024)
        intermediate = int(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden)
        heads = int(config.get("num_attention_heads") or config.get("n_head") or max(hidden // 64, 1))
        return cls(hidden, intermediate, heads, int(config.get("vocab_size") or 32000))


def estimate_peak(
    shape: ModelShape, weights: int, trainable: int, layers: int, *, max_tokens: int, longest: int
) -> int:
    """Bytes at the peak of an update of ``max_tokens`` padded tokens in rows of at most ``longest`` tokens.

    Weights; parameters, gradient sums and two moments of what is trained; what the trained layers keep for the
    backward pass; and the logits with their gradient.
    """
    per_token = layers * (10 * shape.hidden + 4 * shape.intermediate) + 3 * shape.vocabulary
    attention = 3 * layers * shape.heads * longest * max_tokens
    return weights + _FLOAT * (4 * trainable + max_tokens * per_token + attention)
