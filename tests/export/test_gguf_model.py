"""Fused models as GGUF files: read back by the package gguf and by our own reader."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest
from gguf_files import write_gguf
from mlx_lm.utils import load

from mlxsched.cli.main import main
from mlxsched.errors import ChecksFailed
from mlxsched.export import gguf_model
from mlxsched.export.adapter import open_adapter

gguf = pytest.importorskip("gguf")
TOKENS = mx.array([[3, 7, 100, 41, 5, 900]])


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))


def trained(model: object, path, *flags: str) -> str:
    short = ["--preset", "debug", "--iters", "2", "--learning-rate", "1e-2", "--val-batches", "1", "--plain"]
    assert main(["train", *short, "--model", str(model), "--run-dir", str(path), *flags]) == 0
    return str(path)


def floats(file) -> dict[str, np.ndarray]:
    tensors = gguf.GGUFReader(str(file)).tensors
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in tensors}


@pytest.mark.parametrize(("family", "kind"), [("llama", "Q8_0"), ("qwen3", "F16")])
def test_the_file_has_the_base_s_header_and_the_fused_weights(family, kind, architecture, tmp_path, capsys):
    base = write_gguf(architecture(family), tmp_path / "base.gguf", kind)
    run = trained(base, tmp_path / "run", "--dequantize")
    capsys.readouterr()
    assert (
        main(["export", run, "--to", "gguf", "--fused", "--save-path", str(tmp_path / "out"), "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["files"] == ["model.gguf"]
    made, before = (gguf.GGUFReader(str(file)).fields for file in (tmp_path / "out" / "model.gguf", base))
    for name in before:
        if not name.startswith("GGUF.") and name not in ("general.file_type", "general.quantization_version"):
            assert made[name].contents() == before[name].contents(), name
    old, new = floats(base), floats(tmp_path / "out" / "model.gguf")
    assert list(old) == list(new)
    adapted = {name for name in old if not np.allclose(old[name], new[name], atol=2e-3)}
    assert adapted == {name for name in old if ".attn_" in name or ".ffn_" in name if "norm" not in name}
    # The rows of q and k are llama.cpp's: its file minus the base is what its own adapter adds.
    assert main(["export", run, "--to", "gguf", "--save-path", str(tmp_path / "lora")]) == 0
    pair = floats(tmp_path / "lora" / "adapter.gguf")
    for name in ("blk.0.attn_q", "blk.1.attn_k", "blk.1.ffn_down"):
        added = 20.0 * pair[f"{name}.weight.lora_b"] @ pair[f"{name}.weight.lora_a"]
        np.testing.assert_allclose(new[f"{name}.weight"], old[f"{name}.weight"] + added, atol=3e-3)


def test_a_run_on_a_model_of_mlx_names_a_gguf_file_of_it(architecture, tmp_path, capsys):
    model = architecture("llama")
    run = trained(model, tmp_path / "run")
    export = ["export", run, "--to", "gguf", "--fused", "--save-path", str(tmp_path / "out")]
    assert main(export) == 2
    assert "Name one with --from" in capsys.readouterr().err
    base = write_gguf(model, tmp_path / "base.gguf", "F16")
    assert main([*export, "--from", str(base)]) == 0
    tuned, _ = load(str(model), adapter_path=f"{run}/adapters")
    again = tmp_path / "again"
    again.mkdir()
    gguf_model.convert(tmp_path / "out" / "model.gguf", again)
    read, _ = load(str(again))
    assert mx.allclose(read(TOKENS).astype(mx.float32), tuned(TOKENS), atol=3e-2)
    other = write_gguf(architecture("qwen3"), tmp_path / "other.gguf")
    assert main([*export, "--from", str(other), "--force"]) == 2
    assert "is not of the run's model" in capsys.readouterr().err
    assert main(["export", run, "--to", "peft", "--fused"]) == 2


@pytest.mark.parametrize(
    ("name", "broken", "message"),
    [
        ("halves_to_interleaved", lambda rows, heads: rows, "[qk]_proj"),  # the classic mistake
        ("divergence_of_folders", lambda *_: float("nan"), "nan nats per token"),
    ],
)
def test_a_file_that_does_not_agree_is_not_written(
    name, broken, message, architecture, tmp_path, monkeypatch
):
    base = write_gguf(architecture("llama"), tmp_path / "base.gguf", "F16")
    trained(base, tmp_path / "run")
    monkeypatch.setattr(gguf_model, name, broken)
    with pytest.raises(ChecksFailed, match=message):
        gguf_model.export_fused(open_adapter(tmp_path / "run"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
