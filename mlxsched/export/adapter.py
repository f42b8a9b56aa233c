"""The adapter of a run as the exporters need it: matrices by module, and the model that they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlxsched.config.schema import RunConfig
from mlxsched.errors import ModelError, UsageError
from mlxsched.model import adapters
from mlxsched.model.load import resolve_model
from mlxsched.model.local import SMOLLM2
from mlxsched.runs.directory import RunDirectory, split_adapter
from mlxsched.runs.json_file import read_object
from mlxsched.training.recorded import config_of

HUB_NAMES = {SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct"}


@dataclass(frozen=True)
class Pair:
    """LoRA's matrices of one module as mlx-lm has them: ``y = Wx + scale * (x @ a) @ b``.

    ``a`` is (inputs, rank), ``b`` (rank, outputs); of an embedding (vocabulary, rank) and (rank, width). ``magnitude``
    is DoRA's, (outputs,), or None.
    """

    a: mx.array
    b: mx.array
    magnitude: mx.array | None

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return int(self.a.shape[-1])


@dataclass(frozen=True)
class TrainedAdapter:
    """A run's adapter, best or last, and the directory of the model that it was trained on."""

    run: RunDirectory
    config: RunConfig
    path: Path
    model_path: Path

    @property
    def scale(self) -> float:
        """The factor on what LoRA adds; alpha over rank in PEFT's words."""
        return self.config.lora_parameters.scale

    @property
    def base_model(self) -> str | None:
        """The model's name on the Hub, as far as the run knows one."""
        name = self.config.model
        on_hub = name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()
        return name if on_hub else HUB_NAMES.get(name)

    def model_config(self) -> dict[str, Any]:
        """The model's ``config.json``."""
        return dict(read_object((self.model_path / "config.json").resolve()))

    def pairs(self) -> dict[str, Pair]:
        """The matrices by module, in the order of the file; only of LoRA and DoRA."""
        if self.config.fine_tune_type == "full":
            raise UsageError(
                f"{self.run.path} trained whole layers, so there is no adapter to convert. "
                f"Fuse it into its model instead: mlxsched fuse {self.run.path}"
            )
        tensors = adapters.read_tensors(self.path)
        modules = [name.removesuffix(".lora_a") for name in sorted(tensors) if name.endswith(".lora_a")]
        return {
            name: Pair(tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"], tensors.get(f"{name}.m"))
            for name in modules
        }


def open_adapter(path: Path, *, final: bool = False, trust_remote_code: bool = False) -> TrainedAdapter:
    """The best adapter of the run in ``path``, or the last one (``final``); ``path`` may be that of an adapter."""
    place, adapter = split_adapter(path)
    run = RunDirectory.open(place)
    config = config_of(run, trust_remote_code=trust_remote_code, need=("model",))
    chosen = run.final_adapters if final and run.final_adapters.is_dir() else run.adapters
    directory = adapter or chosen
    if not (directory / adapters.WEIGHTS).is_file():
        raise ModelError(f"{run.path} has no adapter yet. Let it train first: mlxsched resume {run.path}")
    return TrainedAdapter(run, config, directory, _directory(resolve_model(config.model)))


def _directory(model: str) -> Path:
    """The local directory of a model; a repository is looked up in Hugging Face's cache, or fetched."""
    if Path(model).is_dir():
        return Path(model)
    from mlx_lm.utils import _download

    try:
        return Path(str(_download(model)))
    except Exception as error:  # huggingface_hub raises dozens of kinds
        raise ModelError(
            f"the model {model} is not on this machine and can't be downloaded: {error}"
        ) from error


def is_embedding(module: str) -> bool:
    """Whether a module of this name is the table of token embeddings.

    >>> is_embedding("model.embed_tokens"), is_embedding("model.layers.0.self_attn.q_proj")
    (True, False)
    """
    return module.rpartition(".")[2] in ("embed_tokens", "wte", "tok_embeddings", "embedding")


def refuse_experts(pairs: Mapping[str, Pair], target: str) -> None:
    """Raise `UsageError` where a module has a matrix for each expert."""
    experts = [name for name, pair in pairs.items() if pair.a.ndim != 2]
    if experts:
        raise UsageError(
            f"{experts[0]} has one LoRA matrix for each expert, which {target} can't represent. "
            "Use `mlxsched fuse`, or train with lora_parameters.keys that leave the experts out."
        )
