"""Models and tokenizers: the bundled one, a local directory, or a Hugging Face repository, through mlx-lm."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from mlxsched.bundled import MODELS, model_path
from mlxsched.errors import ModelError
from mlxsched.model import gguf, local
from mlxsched.model.trees import flatten
from mlxsched.model.untrusted import check_model_directory
from mlxsched.platform.blas import use_threads
from mlxsched.platform.kernels import precompile_header
from mlxsched.platform.machine import cores

_SAMPLES = 64  # of a weight file, for its fingerprint: reading gigabytes at each start would cost seconds
_SAMPLE_BYTES = 65536
_ONE_THREAD = (
    128  # wider models are faster with two threads: by 14% at 256, by 31% at 576 (benchmarks/blas_threads.py)
)
# The architectures of mlx-lm with a table of positions. Others have rotary or no position embeddings.
_LEARNED_POSITIONS = ("gpt2", "gpt_bigcode")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to train, its tokenizer, and where they came from."""

    name: str
    path: str  # what mlx-lm's own commands take
    model: Module
    tokenizer: Any
    config: dict[str, Any]
    notes: tuple[str, ...] = ()


def resolve_model(name: str) -> str:
    """The path or repository behind a model name; a path that is not there is refused at once."""
    if name in MODELS:
        return str(model_path(name))
    file = local.gguf_file(name)
    if file is not None:
        return str(gguf.converted(file))
    path = Path(name).expanduser()
    if path.exists():
        if not (path / "config.json").is_file():
            raise ModelError(f"{name} holds no config.json. Give a model directory in mlx-lm's format.")
        check_model_directory(path)
        return str(path)
    looks_like_path = name.startswith((".", "/", "~")) or name.count("/") != 1
    if looks_like_path:
        raise ModelError(
            f"no model '{name}': neither {', '.join((*MODELS, local.SMOLLM2))}, nor a directory or a GGUF file, nor a "
            "Hugging Face repository like Qwen/Qwen3-0.6B. `mlxsched models` lists what is on this machine."
        )
    return name


def load_model(name: str, *, trust_remote_code: bool = False, dequantize: bool = False) -> LoadedModel:
    """Load ``name`` for training; on the CPU half-precision weights become float32, which is faster there.

    With ``dequantize`` the weights of a quantized model become floats, which takes more memory and less time.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    precompile_header()  # in the background: a few seconds remain before the first kernel is needed
    path = resolve_model(name)
    model, tokenizer, config = _load_through_mlx_lm(name, path, trust_remote_code)
    if dequantize:
        model, config = _dequantized(model, config)
    use_threads(planned_threads(config))
    notes = widen_on_cpu(model)
    return LoadedModel(name, path, model, tokenizer, config, notes)


def planned_threads(config: Mapping[str, Any]) -> int:
    """One thread for the products of a small model: OpenBLAS's others only wait in a loop for their share.

    A gradient of a model of width 128 takes 1.03 of the time that it takes with two threads, and 0.62 of their CPU time.
    """
    width = config.get("hidden_size")
    small = isinstance(width, int) and width <= _ONE_THREAD
    return 1 if small else cores()


def _load_through_mlx_lm(name: str, path: str, trust: bool) -> tuple[Module, Any, dict[str, Any]]:
    import mlx_lm.utils

    try:
        loaded: Any = mlx_lm.utils.load(
            path, tokenizer_config={"trust_remote_code": trust}, return_config=True, trust_remote_code=trust
        )
    except Exception as error:  # mlx-lm, transformers and huggingface_hub raise dozens of kinds
        if isinstance(error, MemoryError):
            raise
        raise ModelError(_explain(name, path, error)) from error
    model, tokenizer, config = loaded
    if not hasattr(model, "layers"):
        raise ModelError(f"{name} ({config.get('model_type')}) has no list of layers to apply LoRA to.")
    return model, tokenizer, config


def _dequantized(model: Module, config: dict[str, Any]) -> tuple[Module, dict[str, Any]]:
    """``model`` with floats for its quantized weights, and ``config`` without the mention of them."""
    import mlx_lm.utils

    convert: Any = mlx_lm.utils.dequantize_model
    rest = {key: value for key, value in config.items() if key not in ("quantization", "quantization_config")}
    return convert(model), rest


def _explain(name: str, path: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if Path(path).exists():
        return f"cannot load the model {name}: {reason}"
    return (
        f"cannot fetch the model {name} from Hugging Face: {reason}\n"
        "Check the spelling and the network, or give a local directory; `--model tiny` needs neither."
    )


def widen_on_cpu(model: Module) -> tuple[str, ...]:
    """Turn half-precision weights into float32 on the CPU, where MLX's half-precision products are slow; says so."""
    narrow = {mx.float16, mx.bfloat16}
    parameters = flatten(model.parameters()).values()
    if mx.default_device().type != mx.DeviceType.cpu or not any(p.dtype in narrow for p in parameters):
        return ()
    if any(p.dtype == mx.uint32 for p in parameters):
        return (
            "quantized weights are slow on the CPU: an unquantized model, or --dequantize, trains faster here",
        )
    model.update(tree_map(lambda p: p.astype(mx.float32) if p.dtype in narrow else p, model.parameters()))
    mx.eval(model.parameters())
    return ("half-precision weights were converted to float32, which is faster on the CPU",)


def count_parameters(model: Module) -> tuple[int, int]:
    """All parameters and the trainable ones (a quantized weight counts as the numbers that it stands for)."""
    import mlx_lm.utils

    total: Any = mlx_lm.utils.get_total_parameters
    return int(total(model)), sum(p.size for p in flatten(model.trainable_parameters()).values())


def max_positions(config: Mapping[str, Any]) -> int | None:
    """How many positions a model has, if it looks them up in a learned table; None if it computes them.

    Beyond its end a table gives whatever lies in memory there, and no error: rows must be cut to fit.

    >>> max_positions({"model_type": "gpt2", "n_positions": 1024}), max_positions({"model_type": "llama"})
    (1024, None)
    """
    if config.get("model_type") not in _LEARNED_POSITIONS:
        return None
    positions = config.get("n_positions")
    return positions if isinstance(positions, int) and positions > 0 else None


def room_for_answer(model: Module, prompt_tokens: int) -> float:
    """How many tokens may follow a prompt before the positions of ``model`` run out; infinite where it computes them."""
    positions = max_positions(vars(getattr(model, "args", object)))
    return math.inf if positions is None else positions - prompt_tokens


def model_fingerprint(path: str) -> str | None:
    """A hash over config and weight files of a local model: size, header and evenly spread samples of each.

    None for a repository name: its files may not be here.
    """
    directory = Path(path)
    if not directory.is_dir():
        return None
    digest = hashlib.sha256()
    for file in sorted([*directory.glob("config.json"), *directory.glob("model*.safetensors")]):
        size = file.stat().st_size
        digest.update(json.dumps([file.name, size]).encode())
        with file.open("rb") as stream:
            for index in range(_SAMPLES):
                stream.seek(index * max(size - _SAMPLE_BYTES, 0) // (_SAMPLES - 1))
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
