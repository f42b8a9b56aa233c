"""GGUF files as llama.cpp's converter writes them, by the package gguf, from models in mlx-lm's format."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

gguf = pytest.importorskip("gguf")


def write_gguf(model: Path, file: Path, kind: str = "F32", **changes: object) -> Path:
    """Write the model in the directory ``model`` as llama.cpp's converter does; matrices are of type ``kind``."""
    config = json.loads((model / "config.json").read_text())
    family = config["model_type"]
    writer = gguf.GGUFWriter(str(file), changes.get("family", family))
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_context_length(512)
    writer.add_rope_freq_base(config.get("rope_theta", 10000.0))
    add_tokenizer(writer, model, config["vocab_size"], str(changes.get("pre", "gpt-2")))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    for name, value in mx.load(str(model / "model.safetensors")).items():
        array = np.array(value.astype(mx.float32))
        for part, heads in (("q_proj", "num_attention_heads"), ("k_proj", "num_key_value_heads")):
            if family == "llama" and part in name:  # as convert_hf_to_gguf.py permutes them
                n = config[heads]
                array = array.reshape(n, 2, array.shape[0] // n // 2, -1).swapaxes(1, 2).reshape(array.shape)
        type_ = gguf.GGMLQuantizationType[kind] if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            names.get_name(name, (".weight", ".bias")),
            gguf.quants.quantize(array, type_),
            raw_dtype=type_,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def add_tokenizer(writer, model: Path, size: int, pre: str) -> None:
    saved = json.loads((model / "tokenizer.json").read_text())
    settings = json.loads((model / "tokenizer_config.json").read_text())
    special = {token["content"]: token["id"] for token in saved["added_tokens"]}
    ids = {**saved["model"]["vocab"], **special}
    by_id = {index: token for token, index in ids.items()}
    types = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id.get(i, f"[PAD{i}]") for i in range(size)])
    unused = [types.UNUSED if i not in by_id else types.NORMAL for i in range(size)]
    writer.add_token_types([types.CONTROL if by_id.get(i) in special else unused[i] for i in range(size)])
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in saved["model"]["merges"]]
    )
    writer.add_bos_token_id(ids[settings["bos_token"]])
    writer.add_eos_token_id(ids[settings["eos_token"]])
    writer.add_pad_token_id(ids[settings["pad_token"]])
    writer.add_add_bos_token(False)
    writer.add_chat_template(settings["chat_template"])
