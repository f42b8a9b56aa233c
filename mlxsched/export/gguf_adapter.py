"""An adapter as a GGUF file, for llama.cpp (``--lora``), Ollama and LM Studio.

Names, shapes and keys are those of llama.cpp's ``convert_lora_to_gguf.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mlxsched.errors import UsageError
from mlxsched.export.adapter import Pair, TrainedAdapter, is_embedding, refuse_experts
from mlxsched.export.folder import write_folder
from mlxsched.model.gguf import halves_to_interleaved

FILE = "adapter.gguf"

# model_type of config.json -> llama.cpp's architecture.
ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "granite": "granite",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
    "phi3": "phi3",
}
_PERMUTED = ("llama", "granite")  # the rows of q and k are interleaved there; see `halves_to_interleaved`


def export_gguf(adapter: TrainedAdapter, target: Path, *, force: bool = False) -> list[str]:
    """Write ``adapter.gguf`` into ``target`` and return the names of the files."""
    library()

    def fill(directory: Path) -> None:
        write_adapter(adapter, directory / FILE)

    return write_folder(target, fill, force=force)


def library() -> Any:
    """The package gguf; a `UsageError` with the command where it is missing."""
    try:
        import gguf
    except ImportError:
        raise UsageError('writing GGUF needs the package gguf: pip install "mlxsched[export]"') from None
    return gguf


def write_adapter(adapter: TrainedAdapter, file: Path) -> None:
    """Write the adapter's matrices in float32, under llama.cpp's names, with alpha = scale * rank."""
    gguf = library()
    pairs, config = adapter.pairs(), adapter.model_config()
    refuse_experts(pairs, "an adapter of llama.cpp")
    _refuse_others(adapter, pairs)
    architecture = architecture_of(config)
    writer = gguf.GGUFWriter(str(file), architecture)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(adapter.run.name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, adapter.scale * next(iter(pairs.values())).rank)
    for name, value in _tensors(gguf, architecture, config, pairs):
        writer.add_tensor(name, np.ascontiguousarray(np.array(value.astype(mx.float32))))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def architecture_of(config: Mapping[str, Any]) -> str:
    """llama.cpp's name for a model's architecture; a `UsageError` where it is not known here."""
    kind = str(config.get("model_type"))
    if kind not in ARCHITECTURES:
        raise UsageError(
            f"models of the type {kind} can't be converted to GGUF; supported are {', '.join(ARCHITECTURES)}. "
            "Export to PEFT and use llama.cpp's convert_lora_to_gguf.py."
        )
    return ARCHITECTURES[kind]


def _refuse_others(adapter: TrainedAdapter, pairs: Mapping[str, Pair]) -> None:
    fuse = f"Fuse it into its model instead: mlxsched fuse {adapter.run.path}"
    if adapter.config.fine_tune_type == "dora":
        raise UsageError(f"llama.cpp's adapters can't hold DoRA's magnitudes. {fuse}")
    embedding = next(filter(is_embedding, pairs), None)
    if embedding is not None:
        raise UsageError(
            f"{embedding}: llama.cpp does not apply an adapter of the embeddings to the head. {fuse}"
        )


def _tensors(
    gguf: Any, architecture: str, config: Mapping[str, Any], pairs: Mapping[str, Pair]
) -> Iterator[tuple[str, mx.array]]:
    """Pairs under llama.cpp's names: ``lora_a`` is (rank, inputs), ``lora_b`` (outputs, rank).

    The interleaving of q's and k's rows concerns outputs, so ``lora_b`` alone.
    """
    names = gguf.get_tensor_name_map(
        getattr(gguf.MODEL_ARCH, architecture.upper()), int(config["num_hidden_layers"])
    )
    heads = int(config["num_attention_heads"])
    keys = int(config.get("num_key_value_heads") or heads)
    for module, pair in pairs.items():
        name = names.get_name(f"{module}.weight", (".weight",))
        if name is None:
            raise UsageError(f"llama.cpp has no name for the module {module} of this architecture.")
        outputs = pair.b.T
        if architecture in _PERMUTED and module.endswith((".q_proj", ".k_proj")):
            outputs = halves_to_interleaved(outputs, heads if module.endswith(".q_proj") else keys)
        yield f"{name}.lora_a", pair.a.T
        yield f"{name}.lora_b", outputs
