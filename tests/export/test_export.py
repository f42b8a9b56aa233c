"""Fusing and exporting real small runs; each result is read back by the library that it is for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_lm.utils import load

from mlxsched.cli.fuse import _show
from mlxsched.cli.main import main
from mlxsched.export.folder import MARKER, write_folder
from mlxsched.export.fuse import FuseReport

TOKENS = [3, 7, 100, 41, 5, 900]
SHORT = ["--preset", "debug", "--iters", "2", "--learning-rate", "1e-2", "--val-batches", "1", "--plain"]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """Train for two updates; gives the run's directory. The same arguments give the same run."""
    made = {}

    def make(*flags: str) -> Path:
        if flags not in made:
            path = tmp_path_factory.mktemp("runs") / "run"
            assert main(["train", *SHORT, "--run-dir", str(path), *flags]) == 0
            made[flags] = path
        return made[flags]

    return make


def logits(model: object, adapter: Path | None = None) -> mx.array:
    loaded = load(str(model), adapter_path=str(adapter) if adapter else None)
    return loaded[0](mx.array([TOKENS]))[0].astype(mx.float32)


def result(capsys, *arguments: object) -> dict:
    capsys.readouterr()  # what a training printed
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def model_of(run: Path) -> str:
    return json.loads((run / "adapters" / "adapter_config.json").read_text())["model"]


@pytest.mark.parametrize("kind", ["lora", "dora", "full"])
def test_a_fused_model_predicts_what_the_adapter_does(kind, make_run, tmp_path, capsys):
    run = make_run("--fine-tune-type", kind, "--num-layers", "2")
    report = result(capsys, "fuse", run, "--save-path", tmp_path / "fused")
    assert report["divergence"] <= report["tolerance"] == 1e-5
    assert report["same_choice"] == 1
    tuned = logits(model_of(run), run / "adapters")
    assert mx.allclose(logits(tmp_path / "fused"), tuned, rtol=1e-3, atol=1e-3)
    assert not mx.allclose(logits(model_of(run)), tuned, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("requantized", [False, True])
def test_the_comparison_of_a_fused_model_says_that_it_passed(requantized, capsys):
    bound = None if requantized else 1e-5
    _show(FuseReport("x", 8, 279, 2.5e-8, 1.0, 1.8669, 1.8681, bound, requantized), Path("x"))
    shown = capsys.readouterr()
    assert "Fused model compared with model and adapter, on 8 rows, 279 tokens" in shown.out
    assert ("up to 1e-05 is rounding" in shown.out) is not requantized
    assert ("Passed: they differ only by rounding." in shown.out) is not requantized
    assert ("changed the loss by +0.0012" in shown.err) is requantized


@pytest.mark.parametrize(("family", "kind"), [("llama", "lora"), ("llama", "dora"), ("qwen3_moe", "lora")])
def test_a_quantized_model_is_fused_in_its_own_bits_or_exactly(
    family, kind, make_run, architecture, tmp_path, capsys
):
    model = architecture(family, quantized=True)
    run = make_run("--model", str(model), "--fine-tune-type", kind)
    rough = result(capsys, "fuse", run)
    assert rough["requantized"] is True
    assert rough["tolerance"] is None
    assert "quantization" in json.loads((run / "fused" / "config.json").read_text())
    exact = result(capsys, "fuse", run, "--save-path", tmp_path / "exact", "--dequantize")
    assert exact["divergence"] < min(rough["divergence"], 1e-5)
    assert "quantization" not in json.loads((tmp_path / "exact" / "config.json").read_text())
    assert mx.allclose(logits(tmp_path / "exact"), logits(model, run / "adapters"), rtol=1e-3, atol=1e-3)


def test_a_model_that_does_not_agree_is_not_written(make_run, tmp_path, monkeypatch, capsys):
    from mlx_lm.tuner.lora import LoRALinear

    whole = LoRALinear.fuse
    monkeypatch.setattr(
        LoRALinear, "fuse", lambda self, dequantize=False: whole(self, dequantize) and self.linear
    )
    assert main(["fuse", str(make_run()), "--save-path", str(tmp_path / "fused")]) == 3
    assert "Nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "fused").exists()


def test_peft_files_hold_the_matrices_and_the_scale(make_run, tmp_path):
    run = make_run("--num-layers", "2")
    assert (
        main(["export", str(run), "--to", "peft", "--save-path", str(tmp_path), "--base-model", "me/base"])
        == 0
    )
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "me/base"
    assert config["layers_to_transform"] == [2, 3]
    ours = mx.load(str(run / "adapters" / "adapters.safetensors"))
    theirs = mx.load(str(tmp_path / "adapter_model.safetensors"))
    assert len(theirs) == len(ours)
    name = "model.layers.3.mlp.up_proj"
    a, b = (theirs[f"base_model.model.{name}.lora_{which}.weight"] for which in "AB")
    scale = json.loads((run / "adapters" / "adapter_config.json").read_text())["lora_parameters"]["scale"]
    assert config["lora_alpha"] / config["r"] == scale
    assert mx.allclose(b @ a, (ours[f"{name}.lora_a"] @ ours[f"{name}.lora_b"]).T)


def python_with_peft() -> str | None:
    """An interpreter that has torch and peft; MLXSCHED_PEFT_PYTHON names one, else it is this one."""
    python = os.environ.get("MLXSCHED_PEFT_PYTHON", sys.executable)
    tried = subprocess.run([python, "-c", "import torch, peft"], capture_output=True, check=False)
    return python if tried.returncode == 0 else None


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        (),
        ("--num-layers", "2"),
        ("--fine-tune-type", "dora"),
        ("-c", "tied.yaml"),
    ],
    ids=["lora", "two-layers", "dora", "tied-embedding"],
)
def test_peft_computes_the_same_logits(flags, make_run, tmp_path, monkeypatch):
    python = python_with_peft()
    if python is None:
        pytest.skip(
            "pip install torch==2.13.0 peft transformers, or name an interpreter in MLXSCHED_PEFT_PYTHON"
        )
    keys = ["model.embed_tokens", "self_attn.q_proj"]
    (tmp_path / "tied.yaml").write_text(
        json.dumps({"lora_parameters": {"rank": 8, "scale": 20.0, "keys": keys}})
    )
    run = make_run(*(str(tmp_path / flag) if flag.endswith(".yaml") else flag for flag in flags))
    assert main(["export", str(run), "--to", "peft", "--save-path", str(tmp_path / "peft")]) == 0
    program = Path(__file__).with_name("peft_logits.py")
    arguments = [model_of(run), str(tmp_path / "peft"), json.dumps(TOKENS), str(tmp_path / "out.npy")]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([python, program, *arguments], check=True, env=environment, capture_output=True)
    ours = np.array(logits(model_of(run), run / "adapters"))
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), ours, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_a_gguf_adapter_read_by_the_gguf_package_adds_the_same_to_the_weights(
    kind, make_run, architecture, tmp_path
):
    gguf = pytest.importorskip("gguf")
    model = architecture(kind)
    run = make_run("--model", str(model), "--num-layers", "1")
    assert main(["export", str(run), "--to", "gguf", "--save-path", str(tmp_path)]) == 0
    reader = gguf.GGUFReader(str(tmp_path / "adapter.gguf"))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.type"] == "adapter"
    assert fields["adapter.type"] == "lora"
    assert fields["general.architecture"] == kind
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    ours = mx.load(str(run / "adapters" / "adapters.safetensors"))
    assert len(tensors) == len(ours)
    config = json.loads((run / "adapters" / "adapter_config.json").read_text())["lora_parameters"]
    assert fields["adapter.lora.alpha"] == config["scale"] * config["rank"]
    for theirs, name, heads in [("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2), ("attn_v", "v_proj", 0)]:
        added = tensors[f"blk.2.{theirs}.weight.lora_b"] @ tensors[f"blk.2.{theirs}.weight.lora_a"]
        module = f"model.layers.2.self_attn.{name}"
        wanted = np.array(ours[f"{module}.lora_a"] @ ours[f"{module}.lora_b"]).T
        if kind == "llama" and heads:  # as llama.cpp permutes the weight itself
            wanted = wanted.reshape(heads, 2, 8, -1).swapaxes(1, 2).reshape(wanted.shape)
        np.testing.assert_allclose(added, wanted, rtol=1e-4, atol=1e-6)


def test_a_modelfile_names_base_and_adapter(make_run, tmp_path, capsys):
    pytest.importorskip("gguf")
    arguments = ["export", str(make_run()), "--to", "ollama", "--save-path", str(tmp_path)]
    assert main(arguments) == 2
    assert "Name it with --from" in capsys.readouterr().err
    told = result(capsys, *arguments, "--from", "llama3.2:1b", "--system", "Be brief.")
    assert told["files"] == ["Modelfile", "adapter.gguf"]
    assert (tmp_path / "Modelfile").read_text().splitlines() == [
        "FROM llama3.2:1b",
        "ADAPTER ./adapter.gguf",
        'SYSTEM """Be brief."""',
    ]


@pytest.mark.parametrize(
    ("flags", "kind", "reason"),
    [
        (("--fine-tune-type", "full", "--num-layers", "2"), "peft", "trained whole layers"),
        (("--fine-tune-type", "dora", "--num-layers", "2"), "gguf", "can't hold DoRA's magnitudes"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_with_the_way_out(
    flags, kind, reason, make_run, tmp_path, capsys
):
    pytest.importorskip("gguf")
    run = make_run(*flags)
    assert main(["export", str(run), "--to", kind, "--save-path", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert reason in message
    assert f"mlxsched fuse {run}" in message
    assert not (tmp_path / "out").exists()


def test_files_of_others_are_kept_and_our_own_replaced(make_run, tmp_path, capsys):
    (tmp_path / "adapter_config.json").write_text("theirs")
    arguments = ["export", str(make_run()), "--to", "peft", "--save-path", str(tmp_path)]
    assert main(arguments) == 2
    assert "was not written by mlxsched" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["adapter_config.json"]
    assert main([*arguments, "--force"]) == 0
    assert main(arguments) == 0  # they are ours now
    assert sorted(os.listdir(tmp_path)) == ["adapter_config.json", "adapter_model.safetensors", MARKER]


def test_an_export_that_fails_leaves_nothing(tmp_path):
    def fill(directory: Path) -> None:
        (directory / "half").write_text("half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_folder(tmp_path / "new", fill)
    assert not (tmp_path / "new").exists()
    shutil.copy(__file__, tmp_path / "mine.py")
    with pytest.raises(ValueError, match="no"):
        write_folder(tmp_path, fill)
    assert os.listdir(tmp_path) == ["mine.py"]


def test_a_dry_run_of_push_writes_what_the_hub_reads(make_run, tmp_path, capsys):
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import metadata_load

    run, folder = make_run(), tmp_path / "card"
    push = ["push", run, "me/formulas", "--dry-run", folder]
    assert main([*map(str, push)]) == 2
    assert "Name it with --base-model" in capsys.readouterr().err
    told = result(capsys, *push, "--base-model", "them/base", "--license", "mit")
    assert told["url"] is None
    assert {"README.md", "adapters.safetensors", "adapter_config.json", "mlxsched.yaml"} <= set(told["files"])
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["base_model_relation"]) == ("them/base", "adapter")
    assert (data["library_name"], data["license"]) == ("mlx", "mit")
    assert "lora" in data["tags"]
    (loss, *_) = card.data.eval_results
    after = json.loads((run / "run.json").read_text())["results"]["after"]
    assert loss.metric_value == pytest.approx(after["loss"], abs=1e-6)
    assert metadata_load(folder / "README.md")["model-index"][0]["name"] == "formulas"
    assert json.loads((folder / "adapter_config.json").read_text())["model"] == "them/base"
    for file in ("README.md", "adapter_config.json", "mlxsched.yaml"):
        assert str(tmp_path) not in (folder / file).read_text()
        assert str(run.parent) not in (folder / file).read_text()
    if (folder / "schedule.png").exists():
        assert (folder / "schedule.png").read_bytes().startswith(b"\x89PNG")
        assert "schedule.png" in card.content


@pytest.mark.parametrize("name", ["formulas", "me/two/three", "me/bad name"])
def test_a_name_that_the_hub_refuses_is_told_first(name, make_run, capsys):
    assert main(["push", str(make_run()), name]) == 2
    assert name in capsys.readouterr().err


def test_a_hub_that_is_not_there_ends_with_the_way_out(make_run, tmp_path):
    environment = {
        **os.environ,
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_TOKEN": "hf_none",
        "HF_HOME": str(tmp_path),
    }
    arguments = ["push", str(make_run()), "me/formulas", "--base-model", "them/base"]
    done = subprocess.run(
        [sys.executable, "-m", "mlxsched", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "cannot reach the Hub" in done.stderr
    assert "Traceback" not in done.stderr
