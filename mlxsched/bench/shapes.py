"""Models with random weights in the shapes of well-known models, so that benchmarks need no download."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

_COMMON = {"rms_norm_eps": 1e-5, "max_position_embeddings": 4096, "tie_word_embeddings": True}

# Sizes as in the config.json of HuggingFaceTB/SmolLM2-135M, ibm-granite/granite-4.0-350m, Qwen/Qwen3-0.6B, -1.7B and -4B, and
# meta-llama/Llama-3.2-1B.
SHAPES: dict[str, dict[str, Any]] = {
    "llama-135m": {
        "model_type": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "intermediate_size": 1536,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "rope_theta": 100000.0,
    },
    "granite-350m": {
        "model_type": "granite",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "intermediate_size": 2048,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "vocab_size": 100352,
        "logits_scaling": 4.0,
        "attention_multiplier": 0.015625,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.246,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 10000.0,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
    },
    "llama-1b": {
        "model_type": "llama",
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "rope_theta": 500000.0,
    },
    "qwen3-1.7b": {
        "model_type": "qwen3",
        "hidden_size": 2048,
        "num_hidden_layers": 28,
        "intermediate_size": 6144,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
    },
    "qwen3-4b": {
        "model_type": "qwen3",
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "rope_theta": 1000000.0,
    },
}


def config_of(name: str, **changes: Any) -> dict[str, Any]:
    """The ``config.json`` of a shape; ``changes`` override it, for example with fewer layers."""
    return {**_COMMON, **SHAPES[name], **changes}


def random_model(config: dict[str, Any], kind: str = "float32") -> Module:
    """A model of ``config`` with random weights; ``kind`` is float32, bfloat16 or 4-bit (quantized from bfloat16)."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes, quantize_model

    mx.random.seed(0)
    model_class, arguments = _get_classes(config)
    model: Any = model_class(arguments.from_dict(config))
    if kind != "float32":
        model.set_dtype(mx.bfloat16)
    if kind == "4-bit":
        with contextlib.redirect_stdout(sys.stderr):  # where it says how many bits a weight takes
            model, _ = quantize_model(model, dict(config), group_size=64, bits=4)
    mx.eval(model.parameters())
    made: Module = model
    return made


def count(config: dict[str, Any]) -> int:
    """The parameters of the matrices of a model of ``config``.

    >>> round(count(config_of("qwen3-0.6b")) / 1e9, 2)
    0.6
    """
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    width = config.get("head_dim", hidden // heads)
    attention = 2 * hidden * width * (heads + config["num_key_value_heads"])
    layer = attention + 3 * hidden * config["intermediate_size"]
    return int(config["num_hidden_layers"] * layer + config["vocab_size"] * hidden)
