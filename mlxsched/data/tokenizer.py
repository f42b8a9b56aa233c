"""A tokenizer without its model: enough to look at data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxsched.data.problems import harmless
from mlxsched.errors import ModelError

_FILES = ["*.json", "*.py", "*.model", "*.tiktoken", "*.txt", "*.jsonl", "*.jinja"]


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """mlx-lm's tokenizer of the model at ``path`` (a directory or a Hugging Face repository)."""
    return load_tokenizer_and_config(path, trust_remote_code=trust_remote_code)[0]


def load_tokenizer_and_config(path: str, *, trust_remote_code: bool = False) -> tuple[Any, dict[str, Any]]:
    """The tokenizer and the config that loading the whole model would give, without its weights.

    The tokens that end a turn come from the config (or generation_config.json), not from the tokenizer's files. Without
    them, checking a data set would see other targets than training on it.

    Raises:
        ModelError: there is no such model, or its tokenizer can't be loaded.
    """
    import mlx_lm.utils

    load: Any = mlx_lm.utils.load_tokenizer
    try:
        directory = _local(path)
        config: dict[str, Any] = mlx_lm.utils.load_config(directory)
        more = {"trust_remote_code": trust_remote_code}
        return load(directory, more, eos_token_ids=config.get("eos_token_id")), config
    except Exception as error:  # noqa: BLE001 - transformers and huggingface_hub raise dozens of kinds
        what = harmless(str(error).strip() or type(error).__name__, 300)
        raise ModelError(
            f"The tokenizer of {harmless(path, 200)!r} could not be loaded: {what}. "
            "Give a model directory in mlx-lm's format, or --model tiny."
        ) from None


def _local(path: str) -> Path:
    """The directory of the model's small files, downloaded if need be."""
    if Path(path).exists():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(path, allow_patterns=_FILES))
