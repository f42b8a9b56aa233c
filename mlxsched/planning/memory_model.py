"""How much memory a training takes at its peak, from the shape of the model and of its micro-batches.

MLX evaluates lazily and runs ahead: while one operation computes, the results of the next few are allocated already.
So the peak can't be computed from a single moment. What holds well is

    kept + ((head)^p + (working)^p)^(1/p) + optimizer

where *kept* is what the trained layers keep for the backward pass, *head* what the logits and their gradient take,
and *working* what is in flight in one layer. A run with recomputed layers limits how far MLX runs ahead, which lowers the
second term to 0.84 of its value. The factors were fitted by ``benchmarks/memory_plan.py --fit`` to measured
peaks on the CPU: Llama, Qwen3 and Granite shapes, LoRA and full, 4-bit, on each forward path. Other architectures are
measured (`mlxsched.training.peak_probe`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Factors:
    """Numbers kept or in flight, as multiples of the widths of a layer, of the logits and of what is trained."""

    kept_hidden: float = 4.47
    kept_intermediate: float = 5.01
    kept_queries: float = 3.55
    kept_keys: float = 5.34
    kept_scores: float = 1.05
    working_hidden: float = 2.93
    working_intermediate: float = 6.71
    working_queries: float = 6.37
    working_scores: float = 1.15
    again: float = 1.39  # a layer that is recomputed in the backward pass, in addition to the one in flight
    logits_plain: float = 3.19
    logits_gathered: float = 4.17
    logits_chunked: float = 3.27  # each target of several chunks, up to so many chunks' targets:
    most_chunks: float = 10.15
    logits_chunked_again: float = 1.9  # and with layers that are recomputed
    most_chunks_again: float = 11.04
    overlap: float = 1.39  # the p above: 1 would be a sum, infinity the larger one
    overlap_chunked: float = 2.92
    trained: float = 1.78  # moments, sums and gradients while a micro-batch is computed
    applied: float = 7.23  # and while the update is made


FACTORS = Factors()
# With the limit at 0.8 of what would be in flight, updates took as long as without it, and up to 5% more memory than the limit.
# With nothing ahead, a layer still needs 0.6 to 0.75: a lower limit would make MLX wait all the time.
LIMITED = 0.84
LIMIT_SHARE = 0.95
FITTED = frozenset(
    {"llama", "mistral", "qwen2", "qwen3", "granite"}
)  # model types: dense, with causal attention only


@dataclass(frozen=True)
class ModelShape:
    """What the size of activations depends on: widths, heads and vocabulary."""

    hidden: int
    intermediate: int
    heads: int
    queries: int
    keys: int
    vocabulary: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ModelShape:
        """Read a model's ``config.json``; unusual names fall back to the common ratios.

        >>> ModelShape.of({"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100})
        ModelShape(hidden=64, intermediate=256, heads=4, queries=64, keys=32, vocabulary=100)
        """
        config = {**config, **(config.get("text_config") or {})}
        hidden = int(config.get("hidden_size") or config.get("n_embd") or config.get("d_model") or 1024)
        heads = int(config.get("num_attention_heads") or config.get("n_head") or max(hidden // 64, 1))
        width = int(config.get("head_dim") or hidden // heads)
        keys = int(config.get("num_key_value_heads") or heads) * width
        vocabulary = int(config.get("vocab_size") or 32000)
        return cls(hidden, _intermediate(config, hidden), heads, heads * width, keys, vocabulary)


def _intermediate(config: Mapping[str, Any], hidden: int) -> int:
    """Width of the feed-forward part; of a mixture of experts, of those that a token goes through."""
    experts = int(config.get("num_experts_per_tok") or 0)
    if experts and config.get("moe_intermediate_size"):
        return experts * int(config["moe_intermediate_size"])
    return int(config.get("intermediate_size") or config.get("n_inner") or 4 * hidden)


@dataclass(frozen=True)
class Workload:
    """What a forward path and a choice of trained layers mean for memory.

    Args:
        trained: layers from the first trained one on.
        trained_bytes: bytes of the trained parameters.
        gathered: logits at targets only.
        chunk: at most that many targets' logits at a time; None for all.
        checkpoint: every n-th layer is recomputed in the backward pass; 0 for none.
        width: bytes of an activation.
        before: tokens of a shared prompt, whose keys every row sees in addition to its own.
        copied: every row holds a copy of these keys.
        scores: shares of the attention scores that are kept for the backward pass, and in memory at once.
        held: tokens of the shared prompt that is computed, or that these rows continue.
        limited: MLX waits before it allocates more than `allocation_limit`.
    """

    trained: int
    trained_bytes: int
    gathered: bool = True
    chunk: int | None = None
    checkpoint: int = 0
    width: int = 4
    before: int = 0
    copied: bool = True
    scores: tuple[float, float] = (1.0, 1.0)
    held: int = 0
    limited: bool = False


def peak_above_weights(
    shape: ModelShape, workload: Workload, rows: int, length: int, targets: int, factors: Factors = FACTORS
) -> int:
    """Bytes above the weights at the peak of an update with micro-batches of ``rows`` rows of ``length`` inputs.

    ``targets`` are those of the micro-batch. Within 13% of `mx.get_peak_memory` at all points of the module's script;
    where layers are recomputed without a limit, within 16.1%.
    """
    tokens = rows * length
    seen = workload.before + length
    layer = tokens * workload.width * _kept(shape, seen * workload.scores[0], factors)
    copies = rows if workload.copied else 1
    layer += copies * workload.before * workload.width * factors.kept_keys * shape.keys
    working = tokens * workload.width * _working(shape, seen * workload.scores[1], factors)
    head = _head(shape, workload, tokens, targets, factors)
    again = -(-workload.trained // workload.checkpoint) if workload.checkpoint else 0
    # Of a shared prompt also keys and values, the sums of their gradients, and the gradients of one micro-batch.
    inputs = tokens * shape.hidden + 6 * workload.held * shape.keys
    kept = (workload.trained - again) * layer + again * workload.width * inputs
    working += factors.again * layer if again else 0.0
    power = factors.overlap_chunked if workload.chunk else factors.overlap
    flying: float = (head**power + working**power) ** (1 / power)
    trained, share = workload.trained_bytes, LIMITED if workload.limited else 1.0
    return round(max(kept + share * flying + factors.trained * trained, factors.applied * trained))


def allocation_limit(above_weights: int) -> int:
    """Bytes above the weights beyond which MLX waits; below the planned ``above_weights``, since one operation may exceed it."""
    return round(LIMIT_SHARE * above_weights)


def _kept(shape: ModelShape, seen: float, factors: Factors) -> float:
    """Numbers that a layer keeps for each token, which has ``seen`` scores in each head."""
    return (
        factors.kept_hidden * shape.hidden
        + factors.kept_intermediate * shape.intermediate
        + factors.kept_queries * shape.queries
        + factors.kept_keys * shape.keys
        + factors.kept_scores * shape.heads * seen
    )


def _working(shape: ModelShape, seen: float, factors: Factors) -> float:
    """Numbers for each token that are in flight inside a layer."""
    return (
        factors.working_hidden * shape.hidden
        + factors.working_intermediate * shape.intermediate
        + factors.working_queries * shape.queries
        + factors.working_scores * shape.heads * seen
    )


def _head(shape: ModelShape, workload: Workload, tokens: int, targets: int, factors: Factors) -> float:
    """Bytes of the logits and their gradient, which are float32."""
    if not workload.gathered:
        return 4 * factors.logits_plain * tokens * shape.vocabulary
    if not workload.chunk or targets <= workload.chunk:
        return 4 * factors.logits_gathered * targets * shape.vocabulary
    each, most = factors.logits_chunked, factors.most_chunks
    if workload.checkpoint:
        each, most = factors.logits_chunked_again, factors.most_chunks_again
    return 4 * min(each * targets, most * workload.chunk) * shape.vocabulary
