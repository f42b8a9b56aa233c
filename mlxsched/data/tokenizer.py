"""A tokenizer without its model: enough to look at data."""

from __future__ import annotations

from typing import Any

from mlxsched.data.problems import harmless
from mlxsched.errors import ModelError


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """mlx-lm's tokenizer of the model at ``path`` (a directory or a Hugging Face repository)."""
    import mlx_lm.utils

    load: Any = mlx_lm.utils.load_tokenizer
    try:
        return load(path, {"trust_remote_code": trust_remote_code})
    except Exception as error:  # noqa: BLE001 - transformers and huggingface_hub raise dozens of kinds
        what = harmless(str(error).strip() or type(error).__name__, 300)
        raise ModelError(
            f"The tokenizer of {harmless(path, 200)!r} could not be loaded: {what}. "
            "Give a model directory in mlx-lm's format, or --model tiny."
        ) from None
