"""The adapter works with mlx-lm's own commands as they come."""

from __future__ import annotations

import json
import subprocess
import sys

from mlxsched.bundled import model_path
from mlxsched.model.conversation import Conversation
from mlxsched.model.load import load_model
from mlxsched.training.inference import load_run_model
from mlxsched.training.recorded import config_of

PROMPT = "Get the average of A1 to A9"


def mlx_lm(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_lm", *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answer(loaded) -> str:
    return "".join(Conversation(loaded.model, loaded.tokenizer, max_tokens=12).ask(PROMPT))


def test_generate_and_fuse_say_what_we_say(train, tmp_path):
    run, _, _ = train(iters=40, learning_rate=3e-3)
    ours = load_run_model(run, config_of(run))
    expected = answer(ours)
    base = load_run_model(run, config_of(run), base=True)
    assert answer(base) != expected

    model, adapter = str(model_path("tiny")), str(run.adapters)
    common = ("--prompt", PROMPT, "--max-tokens", "12", "--temp", "0.0", "--verbose", "False")
    assert (
        mlx_lm("generate", "--model", model, "--adapter-path", adapter, *common).strip() == expected.strip()
    )

    fused = tmp_path / "fused"
    mlx_lm("fuse", "--model", model, "--adapter-path", adapter, "--save-path", str(fused))
    loaded = load_model(str(fused))
    assert answer(loaded) == expected


def test_adapter_config_names_what_mlx_lm_reads(train):
    run, _, _ = train(num_layers=2, **{"lora_parameters.rank": 4, "lora_parameters.scale": 10.0})
    config = json.loads((run.adapters / "adapter_config.json").read_text())
    assert (config["fine_tune_type"], config["num_layers"]) == ("lora", 2)
    assert config["lora_parameters"] == {"rank": 4, "scale": 10.0, "dropout": 0.0}
