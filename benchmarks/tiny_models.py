"""Tiny random models of mlx-lm's architectures: sizes by the names of their fields, and settings that are not sizes."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import typing
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.bundled import model_path
from mlxsched.data.tokenizer import load_tokenizer
from mlxsched.model import adapters
from mlxsched.model.load import LoadedModel
from mlxsched.model.trees import flatten, unflatten

VOCABULARY, LAYERS, HIDDEN, HEADS, HEAD = 160, 4, 64, 4, 16
TOO_BIG = 30_000_000  # parameters: more means that the model has a size field unknown to this script
# Sizes, under the field names of mlx-lm's dataclasses.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ["vocab_size", "embedding_size", "padded_vocab_size", "vocab_size_per_layer_input"], VOCABULARY
    ),
    **dict.fromkeys(
        ["num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers"], LAYERS
    ),
    **dict.fromkeys(
        ["hidden_size", "d_model", "n_embd", "dim", "model_dim", "lru_width", "block_dim"], HIDDEN
    ),
    **dict.fromkeys(["hidden_dim", "dim_model", "attention_dim", "q_lora_rank", "n_inner"], HIDDEN),
    **dict.fromkeys(
        ["intermediate_size", "mlp_hidden_size", "ffn_hidden_size", "ffn_dim", "mamba_d_ssm", "block_ff_dim"],
        96,
    ),
    **dict.fromkeys(
        [
            "moe_intermediate_size",
            "shared_expert_intermediate_size",
            "expert_ffn_hidden_size",
            "expert_hidden_dim",
        ],
        32,
    ),
    **dict.fromkeys(["shared_intermediate_size", "moe_shared_expert_intermediate_size"], 32),
    **dict.fromkeys(
        ["num_attention_heads", "n_heads", "n_head", "num_heads", "linear_num_value_heads", "mamba_n_heads"],
        HEADS,
    ),
    **dict.fromkeys(
        ["num_key_value_heads", "n_kv_heads", "num_kv_heads", "n_head_kv", "linear_num_key_heads"], HEADS // 2
    ),
    **dict.fromkeys(
        ["head_dim", "attention_head_dim", "linear_key_head_dim", "linear_value_head_dim", "head_size"], HEAD
    ),
    **dict.fromkeys(
        ["kv_lora_rank", "v_head_dim", "qk_nope_head_dim", "global_head_dim", "swa_head_dim"], HEAD
    ),
    **dict.fromkeys(["qk_rope_head_dim", "rotary_dim", "index_head_dim", "mamba_d_head", "mamba_d_state"], 8),
    **dict.fromkeys(["hidden_size_per_layer_input", "laurel_rank"], 8),
    **dict.fromkeys(
        [
            "num_experts",
            "n_routed_experts",
            "num_local_experts",
            "moe_num_experts",
            "index_topk",
            "index_n_heads",
        ],
        4,
    ),
    **dict.fromkeys(["num_experts_per_tok", "moe_topk", "moe_k", "n_activated_experts", "top_k_experts"], 2),
    **dict.fromkeys(
        ["n_group", "topk_group", "num_shared_experts", "n_shared_experts", "num_dense_layers"], 1
    ),
    **dict.fromkeys(
        ["max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "context_length"], 128
    ),
    **dict.fromkeys(
        ["norm_eps", "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"], 1e-5
    ),
    **dict.fromkeys(["rope_theta", "rotary_emb_base", "rope_base"], 10000.0),
    **dict.fromkeys(["hidden_act", "hidden_activation", "activation_function"], "silu"),
    **dict.fromkeys(
        ["sliding_window", "sliding_window_size", "attention_chunk_size", "attention_window_size"], 64
    ),
    **dict.fromkeys(["state_size", "conv_kernel", "d_conv", "conv_L_cache", "linear_conv_kernel_dim"], 4),
    **dict.fromkeys(["mamba_d_conv", "time_step_rank", "partial_rotary_factor_inverse"], 4),
}
BY_TYPE: dict[Any, Any] = {int: 1, float: 1.0, bool: False, str: "silu"}
NESTED = ("text_config", "llm_config", "language_config")
INNER = {"lfm2-vl": "lfm2", "qwen3_vl_moe": "qwen3_moe"}  # these take their sizes as a plain dictionary


ROPE = {"rope_theta": 10000.0, "rope_type": "default", "type": "default", "factor": 1.0}
YARN = {
    **ROPE,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}
YARN |= {"original_max_position_embeddings": 128}
HALVES = ["sliding_attention", "full_attention"] * (LAYERS // 2)
# Settings that are not sizes: layer types, and values that depend on each other.
SPECIAL: dict[str, dict[str, Any]] = {
    "glm_moe_dsa": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "minicpm3": {"rope_scaling": {**YARN, "short_factor": [1.0] * 4, "long_factor": [1.0] * 4}},
    "longcat_flash": {
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
        "zero_expert_num": 1,
        "zero_expert_type": "identity",
    },
    "llama4": {"num_experts_per_tok": 1, "interleave_moe_layer_step": 2, "attn_temperature_tuning": 4},
    "ministral3": {"rope_parameters": YARN},
    "mistral4": {"rope_parameters": YARN},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek_v2": {"rope_scaling": YARN, "n_routed_experts": None, "topk_method": "greedy"},
    "exaone4": {"rope_scaling": ROPE, "sliding_window_pattern": "LG"},
    "exaone_moe": {"is_moe_layer": [False, True] * (LAYERS // 2), "layer_types": HALVES},
    "falcon_h1": {
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
    },
    "gemma3n": {
        "num_kv_shared_layers": 0,
        "layer_types": HALVES,
        "altup_num_inputs": 2,
        "altup_active_idx": 0,
        "activation_sparsity_pattern": [0.0] * LAYERS,
    },
    "gemma4_text": {"num_kv_shared_layers": 0, "layer_types": HALVES, "global_head_dim": 16},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * (LAYERS // 2),
        "mamba_n_groups": 1,
        "mamba_d_head": 2 * HIDDEN // HEADS,
        "mamba_conv_bias": True,
        "mamba_proj_bias": False,
    },
    "jamba": {
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
    "hunyuan": {"rope_scaling": {"factor": 1.0, "type": "dynamic", "alpha": 1.0}, "cla_share_factor": 2},
    "kimi_linear": {
        "linear_attn_config": {
            "kda_layers": [1, 3],
            "full_attn_layers": [2, 4],
            "num_heads": HEADS,
            "head_dim": HEAD,
            "short_conv_kernel_size": 4,
        }
    },
    "lfm2": {
        "full_attn_idxs": [1, 3],
        "block_dim": HIDDEN,
        "block_ff_dim": 96,
        "block_auto_adjust_ff_dim": False,
    },
    "llama4_text": {"no_rope_layers": [1, 0] * (LAYERS // 2), "intermediate_size_mlp": 96},
    "mamba2": {
        "time_step_limit": (0.0, 100.0),
        "intermediate_size": HIDDEN,
        "n_groups": 1,
        "time_step_rank": 4,
    },
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [0, 1] * (LAYERS // 2),
        "moe_layer_freq": [0, 1] * (LAYERS // 2),
        "scoring_func": "sigmoid",
        "topk_method": "noaux_tc",
        "swa_v_head_dim": HEAD,
        "swa_num_attention_heads": HEADS,
        "swa_num_key_value_heads": 2,
    },
    "nemotron_h": {
        "hybrid_override_pattern": ["M", "*", "M", "-"],
        "mamba_num_heads": 4,
        "mamba_head_dim": HEAD,
        "ssm_state_size": 8,
    },
}
SPECIAL |= {
    "baichuan_m1": {"conv_window": 2, "sliding_window_layers": [1, 3]},
    "kimi_k3": {
        **SPECIAL["kimi_linear"],
        "hidden_act": "situ",
        "num_experts_per_token": 2,
        "attn_res_block_size": 2,
        "first_k_dense_replace": 1,
    },
    "muse_spark": {
        "layer_types": HALVES,
        "layer_rope_theta": [10000.0, 0.0] * (LAYERS // 2),
        "moe_hidden_size": 32,
        "num_shared_experts": 0,
        "post_norm_eps": 1e-5,
    },
    "nemotron-nas": {
        "block_configs": [
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 2.0}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 2.0}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"replace_with_linear": True}},
            {"attention": {"replace_with_linear": True}, "ffn": {"ffn_mult": 2.0}},
        ]
    },
    "openelm": {
        "num_query_heads": [2, 2, 4, 4],
        "num_kv_heads": [1, 1, 2, 2],
        "ffn_multipliers": [1.0, 1.0, 2.0, 2.0],
        "ffn_dim_divisor": 8,
    },
    # It masks the logits of reserved tokens by id, so the vocabulary must contain them.
    "phi3small": {"vocab_size": 100352, "dense_attention_every_n_layers": 2, "ff_intermediate_size": 96},
    "plamo": {"n_shared_head": 2},
    "prism_hadamard_qwen35": {
        "schema_version": 1,
        "tensor_namespace": "mlx-lm-text",
        "quantization": {"bits": 2, "group_size": 128, "mode": "affine"},
        "hidden_size": 128,
        "modules": [
            {
                "path": f"model.layers.{i}.mlp.shared_expert.gate_proj",
                "embedding": False,
                "dtype": "float16",
                "block": 0,
            }
            for i in range(LAYERS)
        ],
    },
    "qwen": {"kv_channels": HEAD},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "logits_soft_cap": 30.0},
    "rwkv7": dict.fromkeys(
        ["a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim", "decay_low_rank_dim"], 8
    ),
    "spark2_5": {"hidden_act": "gelu", "layer_types": HALVES},
    "step3p5": {"layer_types": HALVES, "moe_top_k": 2, "num_attention_groups": 2, "share_expert_dim": 32},
    "lfm2_moe": SPECIAL["lfm2"],
    "longcat_flash_ngram": SPECIAL["longcat_flash"],
    "gemma4": SPECIAL["gemma4_text"],
}
SIZES |= {
    "sliding_window_pattern": 2,
    "rope_parameters": {**ROPE, "full_attention": ROPE, "sliding_attention": ROPE},
    "original_max_position_embeddings": 128,
}
# Why mlx-lm can't train an architecture, or what is wrong with its implementation.
REASONS = {
    "bitnet": "mlx-lm has no LoRA for packed ternary weights",
    "deepseek_v41": "mlx-lm's router can't be differentiated",
    "kimi_k3": "mlx-lm's model keeps a product of its norms from the first answer on: after full fine-tuning, load it again",
    "muse_spark": "its layers are Metal kernels",
    "olmo": "mlx-lm adds its attention mask to the scores, but the mask is a string",
    "phi3small": "mlx-lm's block-sparse layers attend to later tokens, so padding changes the loss",
    "recurrent_gemma": "mlx-lm's model can't be frozen: it doesn't call Module.__init__",
}


def tiny_values(arguments: Any, kind: str, special: dict[str, Any]) -> dict[str, Any]:
    """Small values for the fields of a ``ModelArgs``; other fields keep their defaults."""
    hints = typing.get_type_hints(arguments)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(arguments):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.name == "model_type":
            values[field.name] = kind
        elif field.name in special:
            values[field.name] = special[field.name]
        elif field.name in SIZES:
            values[field.name] = SIZES[field.name]
        elif field.name in NESTED:
            values[field.name] = nested_values(arguments, kind, special)
        elif required:
            values[field.name] = required_value(field.name, hints[field.name])
    return values


def nested_values(arguments: Any, kind: str, special: dict[str, Any]) -> dict[str, Any]:
    """The sizes of the language model inside a vision-language model."""
    module = sys.modules[arguments.__module__]
    if kind in INNER:
        inner_kind = INNER[kind]
        inside = importlib.import_module(f"mlx_lm.models.{inner_kind}").ModelArgs
        return tiny_values(inside, inner_kind, {**SPECIAL.get(inner_kind, {}), **special})
    inner = [getattr(module, name) for name in ("TextConfig", "TextArgs") if hasattr(module, name)]
    own = tiny_values(inner[0], kind, special) if inner else {}
    if "vocab_size_per_layer_input" in own:  # Gemma 3n embeds its tokens twice, with the same vocabulary
        own["vocab_size"] = max(own["vocab_size"], own["vocab_size_per_layer_input"])
    return {**SIZES, "model_type": kind, "tie_word_embeddings": True, **special, **own}


def required_value(name: str, kind: Any) -> Any:
    """A value for a required field."""
    if name == "layer_types":
        return ["full_attention"] * LAYERS
    origin, options = typing.get_origin(kind), typing.get_args(kind)
    if origin in (list, dict) or kind in (list, dict):
        return (origin or kind)()
    if type(None) in options:
        return None
    return next((BY_TYPE[option] for option in (kind, *options) if option in BY_TYPE), None)


def build(kind: str) -> Module:
    """A tiny random model of an architecture, with LoRA on the upper half of its layers."""
    model, _ = bare(kind)
    lora = {"rank": 4, "scale": 10.0, "dropout": 0.0}
    adapters.attach(model, "lora", len(model.layers) // 2, lora, seed=1)
    model.train()
    mx.eval(model.parameters())
    return model


def loaded(kind: str) -> LoadedModel:
    """A tiny random model of an architecture, as if it had been loaded from a file, with the bundled tokenizer."""
    model, config = bare(kind)
    mx.eval(model.parameters())
    path = str(model_path("tiny"))
    return LoadedModel(kind, path, model, load_tokenizer(path), config)


def bare(kind: str) -> tuple[Module, dict[str, Any]]:
    """A tiny random model of an architecture, and its config."""
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    values = tiny_values(module.ModelArgs, kind, SPECIAL.get(kind, {}))
    mx.random.seed(0)
    model: Module = module.Model(module.ModelArgs.from_dict(values))
    size = sum(value.size for value in flatten(model.parameters()).values())
    if size > TOO_BIG:
        raise ValueError(f"{size / 1e6:.0f}M parameters")
    fill_zeros(model)
    return model, values


def fill_zeros(model: Module) -> None:
    """Fill all-zero parameters with small random values: a checkpoint would; zeros hide errors or give NaNs."""
    zeros = {
        path: value
        for path, value in flatten(model.parameters()).items()
        if mx.issubdtype(value.dtype, mx.floating) and not mx.any(value).item()
    }
    model.update(unflatten({path: 0.02 * mx.random.normal(v.shape, v.dtype) for path, v in zeros.items()}))
