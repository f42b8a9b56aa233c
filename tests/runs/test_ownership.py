"""Adapter files that mlxsched did not write are recognized, so that no run replaces them."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest

from mlxsched.errors import UsageError
from mlxsched.model import adapters
from mlxsched.runs.ownership import ADAPTER_FILES, refuse_foreign_adapter

OURS = adapters.adapter_config("tiny", "lora", 4, {"rank": 8, "scale": 20.0, "dropout": 0.0})
WEIGHTS = {"lora_a": mx.ones((2, 2))}


@pytest.fixture
def folder(tmp_path):
    adapters.save(tmp_path, OURS, WEIGHTS)
    (tmp_path / "thesis.txt").write_text("precious")
    return tmp_path


def test_what_a_run_wrote_is_ours(folder):
    assert sorted(ADAPTER_FILES) == sorted([adapters.CONFIG, adapters.WEIGHTS])
    refuse_foreign_adapter(str(folder))
    refuse_foreign_adapter(None)
    refuse_foreign_adapter(str(folder / "new"))


@pytest.mark.parametrize(
    "content",
    [b"", b"mine", b"\xff" * 8 + b"{}", b"\x02" + bytes(7) + b"[]", b"\x10" + bytes(7) + b"{"],
)
def test_weights_that_are_none_are_foreign(folder, content):
    (folder / adapters.WEIGHTS).write_bytes(content)
    with pytest.raises(UsageError, match=r"holds adapters.safetensors, not written by mlxsched"):
        refuse_foreign_adapter(str(folder))


def test_files_as_mlx_lm_writes_them_are_foreign(folder):
    mx.save_safetensors(str(folder / adapters.WEIGHTS), WEIGHTS)
    (folder / adapters.CONFIG).write_text(json.dumps({**OURS, "batch_size": 4, "iters": 1000}))
    with pytest.raises(UsageError, match=r"adapter_config.json and adapters.safetensors"):
        refuse_foreign_adapter(str(folder))


def test_a_link_is_foreign(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / adapters.CONFIG
    (folder / adapters.CONFIG).rename(elsewhere)
    (folder / adapters.CONFIG).symlink_to(elsewhere)
    with pytest.raises(UsageError, match="--adapter-path"):
        refuse_foreign_adapter(str(folder))
