"""Which short cuts each architecture of the installed mlx-lm takes, found by the self-check on a tiny random model.

Run it with `python benchmarks/architectures.py > docs/architectures.md`; with names, only those are tried.
What the self-check lets pass is compared with the plain path once more, on other rows and in other shapes.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import multiprocessing
import sys
import typing
from collections import Counter
from pathlib import Path
from typing import Any

from mlxsched.platform import blas

blas.preload()

import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from mlx.nn.layers.base import Module  # noqa: E402

from mlxsched.data.rows import COLUMNS, Rows, RowsWriter, from_buffers  # noqa: E402
from mlxsched.training import adapters  # noqa: E402
from mlxsched.training.fast.self_check import SelfCheck, Wanted, choose_route  # noqa: E402
from mlxsched.training.loss import PLAIN_LOSS  # noqa: E402

VOCABULARY, LAYERS, HIDDEN, HEADS, HEAD = 160, 4, 64, 4, 16
TOO_BIG = 30_000_000  # parameters: a size that this script knows no field for
SECONDS = 120
NOT_TRIED = "not tried"
# Sizes by the names that mlx-lm's dataclasses have for them.
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
# What a size can't say: kinds of layers, and settings that belong together.
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
    "lfm2_moe": SPECIAL["lfm2"],
    "longcat_flash_ngram": SPECIAL["longcat_flash"],
    "gemma4": SPECIAL["gemma4_text"],
}
SIZES |= {
    "sliding_window_pattern": 2,
    "rope_parameters": {**ROPE, "full_attention": ROPE, "sliding_attention": ROPE},
    "original_max_position_embeddings": 128,
}


def tiny_values(arguments: Any, kind: str, special: dict[str, Any]) -> dict[str, Any]:
    """Small values for the fields of a dataclass of sizes; what has a default and is no size keeps it."""
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
    """The sizes of the language model inside of one that also sees."""
    module = sys.modules[arguments.__module__]
    inner = [getattr(module, name) for name in ("TextConfig", "TextArgs") if hasattr(module, name)]
    own = tiny_values(inner[0], kind, special) if inner else {}
    return {**SIZES, "model_type": kind, "tie_word_embeddings": True, **special, **own}


def required_value(name: str, kind: Any) -> Any:
    """A value for a field that has to be given."""
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
    module = importlib.import_module(f"mlx_lm.models.{kind}")
    values = tiny_values(module.ModelArgs, kind, SPECIAL.get(kind, {}))
    mx.random.seed(0)
    model: Module = module.Model(module.ModelArgs.from_dict(values))
    size = sum(value.size for value in leaves(model.parameters()))
    if size > TOO_BIG:
        raise ValueError(f"{size / 1e6:.0f}M parameters")
    adapters.attach(model, "lora", len(model.layers) // 2, {"rank": 4, "scale": 10.0, "dropout": 0.0}, seed=1)
    model.train()
    mx.eval(model.parameters())
    return model


def leaves(tree: Any) -> list[mx.array]:
    """The arrays of a tree."""
    from mlxsched.training.trees import flatten

    return list(flatten(tree).values())


def random_rows(seed: int, count: int = 8) -> Rows:
    """Rows of 6 to 40 random tokens, half of them targets."""
    files = {name: io.BytesIO() for name in COLUMNS}
    writer, generator = RowsWriter(files), np.random.default_rng(seed)
    for _ in range(count):
        length = int(generator.integers(6, 41))
        targets = generator.random(length) < 0.5
        targets[0], targets[-1] = False, True
        writer.add(generator.integers(1, VOCABULARY, length).astype(np.int32), targets, 1, "")
    return from_buffers({name: file.getvalue() for name, file in files.items()})


@dataclasses.dataclass
class Line:
    """A line of the table."""

    kind: str
    head: str = ""
    prefix: str = ""
    checkpoint: str = ""
    remark: str = ""

    def __str__(self) -> str:
        return f"| {self.kind} | {self.head} | {self.prefix} | {self.checkpoint} | {self.remark.replace('|', '/')} |"


def tried(kind: str) -> Line:
    """Choose short cuts for an architecture as a run does, and check the choice on other rows."""
    try:
        model = build(kind)
        check = SelfCheck(model, random_rows(0), PLAIN_LOSS)
    except (Exception, SystemExit) as error:  # noqa: BLE001 whatever a module does when it lacks something
        return Line(
            kind,
            NOT_TRIED,
            NOT_TRIED,
            NOT_TRIED,
            f"{type(error).__name__}: {' '.join(str(error).split())[:90]}",
        )
    if not check.usable:
        return Line(
            kind, NOT_TRIED, NOT_TRIED, NOT_TRIED, "the plain path's own loss or gradients are not finite"
        )
    notes: list[str] = []
    route = choose_route(check, model, Wanted(prefix=True, checkpoint=1), notes.append)
    wrong = SelfCheck(model, random_rows(1), PLAIN_LOSS).complaint(route)
    head = "no" if route.head is None else "in chunks" if route.chunk else "gathered"
    prefix, checkpoint = ("yes" if taken else "no" for taken in (route.tap, route.checkpoint))
    return Line(kind, head, prefix, checkpoint, f"WRONG: {wrong}" if wrong else "; ".join(notes))


def in_a_process(kind: str) -> Line:
    """As `tried`, in a process of its own: a model may crash it, or take more than two minutes."""
    context = multiprocessing.get_context("fork")  # nothing has run on the device yet, and imports are slow
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(tried(kind)))
    process.start()
    sender.close()
    try:
        if receiver.poll(SECONDS):
            line: Line = receiver.recv()
            return line
        return Line(kind, NOT_TRIED, NOT_TRIED, NOT_TRIED, f"takes more than {SECONDS} s")
    except EOFError:
        process.join()
        return Line(kind, NOT_TRIED, NOT_TRIED, NOT_TRIED, f"its process ends with code {process.exitcode}")
    finally:
        process.kill()


def architectures() -> list[str]:
    """The modules of mlx-lm that hold a model."""
    import mlx_lm.models

    folder = Path(mlx_lm.models.__path__[0])
    sources = {file.stem: file.read_text(encoding="utf-8") for file in sorted(folder.glob("*.py"))}
    return [name for name, text in sources.items() if "class Model(" in text and "class ModelArgs" in text]


def main() -> None:
    """Print the page."""
    import mlx_lm.tuner.utils

    lines = []
    for kind in sys.argv[1:] or architectures():
        lines.append(in_a_process(kind))
        print(lines[-1], file=sys.stderr, flush=True)
    tried_lines = [line for line in lines if line.head != NOT_TRIED]
    counts = Counter(line.head for line in tried_lines)
    prefixes = sum(line.prefix == "yes" for line in tried_lines)
    checkpoints = sum(line.checkpoint == "yes" for line in tried_lines)
    wrong = sum(line.remark.startswith("WRONG") for line in tried_lines)
    print(f"""# Short cuts by architecture

Made by `python benchmarks/architectures.py` with mlx-lm {mlx_lm.__version__}: a tiny random model of each
architecture, LoRA on the upper half of its layers, float32. **Head**: the loss only at targets, the logits in
chunks or (where what is behind the projection forbids it) gathered. **Prefix**: outputs of the frozen layers kept.
**Checkpointing**: every layer computed again in the backward pass.
A short cut that is not right is found by the self-check at the start of a run and not taken.

Of {len(lines)} architectures {len(tried_lines)} could be built tiny; head in chunks in {counts["in chunks"]}, gathered
in {counts["gathered"]}, plain in {counts["no"]}; prefix in {prefixes}; checkpointing in {checkpoints}. Taken and wrong: {wrong}.

| architecture | head | prefix | checkpointing | remark |
| --- | --- | --- | --- | --- |""")
    print("\n".join(map(str, lines)))


if __name__ == "__main__":
    main()
