"""A tokenizer loaded alone is the one that comes with the whole model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxsched.bundled import model_path
from mlxsched.data.tokenizer import load_tokenizer, load_tokenizer_and_config
from mlxsched.errors import ModelError


def test_the_config_comes_along() -> None:
    tokenizer, config = load_tokenizer_and_config(str(model_path("tiny")))
    assert config["model_type"] == "llama"
    ends = config["eos_token_id"]
    assert set(ends if isinstance(ends, list) else [ends]) <= tokenizer.eos_token_ids


@pytest.mark.parametrize("config", [None, "{", "[]", '{"eos_token_id": "x"}'])
def test_a_broken_model_directory_is_an_error_of_the_user(config: str | None, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(ModelError, match="could not be loaded"):
        load_tokenizer(str(tmp_path))
