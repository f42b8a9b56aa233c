"""GGUF files as models in mlx-lm's format: the Llama, Qwen2 and Qwen3 families, as MLX reads them.

`mx.load` reads Q4_0, Q4_1 and Q8_0 into MLX's own quantized form (groups of 32, half-precision scales) without any
loss, and turns the other types that it knows (F32, F16, BF16, Q2_K, Q4_K, Q6_K) into floats. What is left is to
rename tensors, to put the rows of q and k back in order, and to write config and tokenizer from the metadata. The
result is kept in the cache under a name made from the file's content, so each file is converted once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxsched.errors import ModelError
from mlxsched.model.trees import Tensors
from mlxsched.platform.caches import HEADER
from mlxsched.platform.paths import cache_home
from mlxsched.runs.atomic import StorageError, new_directory, storage_errors

MAGIC = b"GGUF"
FORMAT = 1  # raise it when a conversion writes something else, so that old ones are not used
KIND = "models"  # the folder in the cache

# general.architecture -> model_type of config.json.
FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_ROPE_FREQUENCIES = "rope_freqs.weight"
_SAMPLES, _SAMPLE_BYTES = 64, 65536  # reading gigabytes for a fingerprint would cost seconds at each start


def is_gguf(path: Path) -> bool:
    """Whether ``path`` is a file that begins with GGUF's magic number; Ollama's have no suffix."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def converted(file: Path) -> Path:
    """The directory, in mlx-lm's format, that ``file`` was converted to, now or earlier.

    Raises ``ModelError`` for a file that MLX cannot read or that is of another family.
    """
    final = cache_home() / KIND / f"{_slug(file.stem)}-{fingerprint(file)[:16]}"
    if (final / HEADER).is_file():
        return final
    with storage_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
    try:
        return new_directory(final, lambda directory: convert(file, directory))
    except StorageError:
        if (final / HEADER).is_file():  # another process was faster
            return final
        raise


def fingerprint(file: Path) -> str:
    """A hash over size, header and evenly spread samples of ``file``."""
    size = file.stat().st_size
    digest = hashlib.sha256(json.dumps([FORMAT, size]).encode())
    with file.open("rb") as stream:
        for index in range(_SAMPLES):
            stream.seek(index * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def convert(file: Path, directory: Path) -> None:
    """Write ``file`` into ``directory`` as config, weights and tokenizer in mlx-lm's format.

    Quantized weights stay as they are, bit for bit.
    """
    from mlxsched.model.gguf_tokenizer import build_tokenizer

    tensors, metadata = read(file)
    config = config_of(file, tensors, metadata)
    weights = _weights(file, tensors, config)
    config |= _quantization(weights)
    mx.save_safetensors(str(directory / "model.safetensors"), weights, metadata={"format": "mlx"})
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    build_tokenizer(file, metadata).save_pretrained(str(directory))
    (directory / "README.md").write_text(_card(file, metadata), encoding="utf-8")
    header = {"format": FORMAT, "model": str(file)}
    (directory / HEADER).write_text(json.dumps(header) + "\n", encoding="utf-8")


def read(file: Path) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and metadata of ``file``; numbers of one element come as Python numbers."""
    try:
        loaded: Any = mx.load(str(file), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"MLX cannot read {file}: {error}. It reads F16, F32, Q4_0, Q4_1, Q8_0, Q2_K, Q4_K and Q6_K; "
            "take a file in one of these types."
        ) from error
    tensors, metadata = loaded
    plain: dict[str, Any] = {
        key: value.item() if isinstance(value, mx.array) and value.size == 1 else value
        for key, value in metadata.items()
    }
    if plain.get("split.count", 1) > 1:
        raise ModelError(
            f"{file} is one of {plain['split.count']} parts of a model. Join them first with llama.cpp's "
            "`llama-gguf-split --merge`."
        )
    return tensors, plain


def config_of(file: Path, tensors: Mapping[str, mx.array], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The ``config.json`` that the metadata amounts to."""
    family = _family(file, metadata)
    value = _Keys(file, family, metadata)
    hidden, heads = int(value("embedding_length")), int(value("attention.head_count"))
    head_dim = int(value("attention.key_length", hidden // heads))
    if int(value("rope.dimension_count", head_dim)) != head_dim:
        raise ModelError(f"{file} rotates a part of each head only, which this conversion does not support.")
    config = {
        "model_type": FAMILIES[family],
        "architectures": [_CLASSES[family]],
        "hidden_size": hidden,
        "num_hidden_layers": int(value("block_count")),
        "intermediate_size": int(value("feed_forward_length")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(value("attention.head_count_kv", heads)),
        "head_dim": head_dim,
        "rms_norm_eps": float(f"{value('attention.layer_norm_rms_epsilon'):.6g}"),  # stored as float32
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": int(value("context_length")),
        "rope_theta": float(value("rope.freq_base", 10000.0)),
        "rope_scaling": _rope_scaling(file, tensors, value),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": False,
        "hidden_act": "silu",
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": _end_tokens(metadata),
        "torch_dtype": "float16",
    }
    return {key: item for key, item in config.items() if item is not None}


class _Keys:
    """The metadata of one architecture; a key that is needed and missing is a ``ModelError``."""

    def __init__(self, file: Path, family: str, metadata: Mapping[str, Any]) -> None:
        self._file, self._family, self._metadata = file, family, metadata

    def __call__(self, key: str, default: Any = None) -> Any:
        found = self._metadata.get(f"{self._family}.{key}", default)
        if found is None:
            raise ModelError(f"{self._file} has no {self._family}.{key}: it is not a complete model.")
        return found


def _family(file: Path, metadata: Mapping[str, Any]) -> str:
    family = str(metadata.get("general.architecture"))
    if family not in FAMILIES or metadata.get(f"{family}.expert_count"):
        what = f"{family} with experts" if family in FAMILIES else family
        raise ModelError(
            f"{file} is a GGUF file of the architecture {what}; supported are {', '.join(FAMILIES)} without "
            "experts. Take the same model in MLX's format."
        )
    return family


def _end_tokens(metadata: Mapping[str, Any]) -> int | list[int] | None:
    """The token that ends a text and, where it is another one, the token that ends a turn."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id")
    found = list(dict.fromkeys(int(metadata[key]) for key in keys if key in metadata))
    return found[0] if len(found) == 1 else found or None


def _rope_scaling(file: Path, tensors: Mapping[str, mx.array], value: _Keys) -> dict[str, Any] | None:
    if _ROPE_FREQUENCIES in tensors:
        # Llama 3.1 and later; the other constants are the same in all of its sizes.
        return {
            "rope_type": "llama3",
            "factor": float(str(tensors[_ROPE_FREQUENCIES].max().item())),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
    kind = value("rope.scaling.type", "none")
    if kind == "none":
        return None
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"{file} scales positions by the rule '{kind}', which this conversion does not support."
        )
    scaling = {"rope_type": kind, "type": kind, "factor": float(value("rope.scaling.factor"))}
    original = value("rope.scaling.original_context_length", 0)
    return scaling | ({"original_max_position_embeddings": int(original)} if original else {})


def _weights(file: Path, tensors: Tensors, config: Mapping[str, Any]) -> Tensors:
    """Tensors under mlx-lm's names, with the rows of q and k in its order."""
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    renamed = {}
    for name, value in tensors.items():
        if name == _ROPE_FREQUENCIES:
            continue
        module = re.sub(r"^blk\.\d+\.", "", name).rpartition(".")[0]
        if module in heads and config["model_type"] == "llama":
            value = interleaved_to_halves(value, heads[module])
        renamed[mlx_name(file, name)] = value
    return renamed


def mlx_name(file: Path, name: str) -> str:
    """The name in mlx-lm's models of the tensor ``name``.

    >>> mlx_name(Path("a.gguf"), "blk.3.ffn_gate.scales")
    'model.layers.3.mlp.gate_proj.scales'
    """
    match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias|scales|biases)", name)
    if match is None or match[2] not in NAMES:
        raise ModelError(f"{file} holds the tensor {name}, which the models of its family do not have.")
    layer, module, kind = match.groups()
    return ".".join([*(("model", "layers", layer) if layer else ()), NAMES[module], kind])


def interleaved_to_halves(rows: mx.array, heads: int) -> mx.array:
    """Undo the order that GGUF's Llama has for the rows of q and k.

    llama.cpp rotates neighbours, (0, 1), (2, 3), ..., where Hugging Face's and MLX's models rotate row i of a head
    with row i + d/2. ``rows`` is (heads * d, ...): a weight, or the scales or biases of a quantized one, for all have
    one row for each row of the weight.
    """
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def halves_to_interleaved(rows: mx.array, heads: int) -> mx.array:
    """The inverse of `interleaved_to_halves`."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _quantization(weights: Tensors) -> dict[str, Any]:
    """The ``quantization`` entry: the bits of most modules, and those of each module that differs."""
    bits = {
        name.removesuffix(".scales"): weights[name.removesuffix("scales") + "weight"].shape[1]
        // scales.shape[1]
        for name, scales in weights.items()
        if name.endswith(".scales")
    }
    if not bits:
        return {}
    usual = max(set(bits.values()), key=list(bits.values()).count)
    others = {name: {"group_size": 32, "bits": b} for name, b in sorted(bits.items()) if b != usual}
    return {"quantization": {"group_size": 32, "bits": usual, **others}}


def _card(file: Path, metadata: Mapping[str, Any]) -> str:
    """A README whose front matter tells the licence, for the model cards of what is trained from it."""
    licence = metadata.get("general.license")
    front = f"---\nlicense: {licence}\n---\n" if re.fullmatch(r"[a-z0-9.-]{2,40}", str(licence)) else ""
    return (
        f"{front}# {metadata.get('general.name', file.stem)}\n\nConverted by mlxsched from `{file.name}`.\n"
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "model"
