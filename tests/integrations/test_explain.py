"""What ``explain`` says of mlx-lm is what mlx-lm does: its own trainer, schedule and batches are run and watched."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest
from mlx_lm.lora import CONFIG_DEFAULTS
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.utils import build_schedule

from mlxsched.config import load_config
from mlxsched.errors import ConfigError
from mlxsched.integrations.explain import MlxLmConfig, explain
from mlxsched.integrations.explain_write import same_run
from mlxsched.planning.length import plan_length
from mlxsched.planning.schedule import resolve_schedule

COSINE = {"name": "cosine_decay", "warmup": 3, "warmup_init": 1e-6, "arguments": [1e-3, 20, 1e-5]}
LINEAR = {"name": "linear_schedule", "arguments": [1e-3, 1e-4, 4]}


@pytest.fixture
def write(tmp_path):
    def make(**values) -> Path:
        path = tmp_path / "lora.yaml"
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items()))
        return path

    return make


class Rows:
    """Rows of tokens, of which the first is the number of the row."""

    def __init__(self, count: int) -> None:
        self._rows = [{"text": [index, *range(3 + index % 5)]} for index in range(count)]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int):
        return self._rows[index]

    def process(self, row):
        return row["text"], 0


def watch(settings, rows: int, tmp_path: Path):
    """Train with mlx-lm's own code; return the rate of each update and the rows that updates learned from."""
    mx.random.seed(0)
    model = nn.Sequential(nn.Embedding(64, 8), nn.Linear(8, 64))
    block = settings["lr_schedule"]
    optimizer = optim.SGD(learning_rate=build_schedule(block) if block else settings["learning_rate"])
    rates, seen, pending = [], set(), set()
    accumulation = settings["grad_accumulation_steps"]

    def batches(*arguments, **more):
        for batch, lengths in trainer.iterate_batches(*arguments, **more):
            pending.update(np.array(batch)[:, 0].tolist())
            yield batch, lengths

    class Callback(trainer.TrainingCallback):
        def on_train_loss_report(self, info):
            if info["iteration"] % accumulation == 0:
                rates.append(info["learning_rate"])
                seen.update(pending)
                pending.clear()

    arguments = trainer.TrainingArgs(
        batch_size=settings["batch_size"],
        iters=settings["iters"],
        steps_per_report=1,
        steps_per_save=10**9,
        adapter_file=str(tmp_path / "adapters.safetensors"),
        grad_accumulation_steps=accumulation,
    )
    trainer.train(
        model,
        optimizer,
        CacheDataset(Rows(rows)),
        args=arguments,
        iterate_batches=batches,
        training_callback=Callback(),
    )
    assert int(optimizer.step) == len(rates)
    return rates, seen


@pytest.mark.parametrize(
    "given",
    [
        {"iters": 12},
        {"iters": 12, "lr_schedule": COSINE},
        {"iters": 11, "grad_accumulation_steps": 4, "lr_schedule": LINEAR},
        {"iters": 5, "grad_accumulation_steps": 2, "batch_size": 3, "lr_schedule": COSINE},
        {"iters": 3, "grad_accumulation_steps": 4},
        {"iters": 40, "batch_size": 7, "lr_schedule": LINEAR},
    ],
    ids=str,
)
def test_updates_rates_and_rows_are_those_of_mlx_lm(given, write, tmp_path, capsys):
    rows, values = 23, {"learning_rate": 3e-4, "batch_size": 4, **given}
    found = explain(write(**values), rows).theirs
    rates, seen = watch({**CONFIG_DEFAULTS, **values}, rows, tmp_path)
    assert found.updates == len(rates)
    assert found.rows_never_seen == rows - len(seen)
    if rates:
        assert found.first_rate == pytest.approx(rates[0], rel=1e-6, abs=1e-12)
        assert found.last_rate == pytest.approx(rates[-1], rel=1e-5)
    else:
        assert (found.first_rate, found.last_rate) == (None, None)


def test_defaults_that_differ_are_those_of_the_installed_mlx_lm(write):
    found = {one.key: one for one in explain(write(iters=10), 100).differences}
    ours = load_config(flags={"iters": 10}).config
    for key in ("batch_size", "optimizer", "num_layers", "mask_prompt", "learning_rate", "val_batches"):
        assert (found[key].theirs, found[key].ours) == (CONFIG_DEFAULTS[key], getattr(ours, key))
    assert "iters" not in found and found["bias_correction"].theirs is False
    assert found["rows_never_seen"].theirs == 60 and found["rows_never_seen"].ours == 20
    assert "3 epochs" in {one.key: one for one in explain(write(seed=1), 100).differences}["iters"].ours


def test_each_key_is_explained_at_its_line(write):
    path = write(
        batch_size=4, iters=9, grad_accumulation_steps=2, colour="red", epochs=2, lora_parameters={"rank": 4}
    )
    path.write_text(path.read_text().replace("epochs: 2\n", ""))
    lines = {line.key: line for line in explain(path, 50).lines}
    assert [line.line for line in lines.values()] == [1, 2, 3, 4, 5]
    assert "4 updates of 8 rows" in lines["iters"].theirs and "have no effect" in lines["iters"].theirs
    assert "ignored silently" in lines["colour"].theirs and lines["colour"].ours.startswith("refused")
    assert "KeyError: scale" in lines["lora_parameters"].theirs


@pytest.mark.parametrize("block", [None, COSINE])
def test_the_written_config_makes_the_same_updates_at_the_same_rates(block, write, tmp_path):
    path = write(iters=22, grad_accumulation_steps=4, learning_rate=2e-4, lr_schedule=block, optimizer="adamw",
                 optimizer_config={"adamw": {"weight_decay": 0.1}}, colour="red")  # fmt: skip
    config = MlxLmConfig.read(path)
    (tmp_path / "ours.yaml").write_text(same_run(config).to_yaml())
    loaded = load_config(file=tmp_path / "ours.yaml")
    length = plan_length(loaded.config, 100)
    assert length.updates == config.updates == 5
    ours = resolve_schedule(loaded.config, loaded.origins, length.updates).schedule
    theirs = build_schedule(block) if block else lambda step: mx.array(2e-4)
    for step in range(5):
        assert ours(step) == pytest.approx(theirs(mx.array(step)).item(), rel=1e-5, abs=1e-12)
    assert loaded.config.optimizer_config["adamw"]["weight_decay"] == 0.1
    assert (loaded.config.bias_correction, loaded.config.max_grad_norm) == (False, None)
    assert (loaded.config.num_layers, loaded.config.mask_prompt, loaded.config.batch_size) == (16, False, 4)


def test_what_mlx_lm_could_not_use_is_refused_with_its_place(write):
    with pytest.raises(ConfigError, match=r"lora.yaml:1:1: `iters` must be a whole number"):
        explain(write(iters="many"), 10)
    with pytest.raises(ConfigError, match="makes no update"):
        same_run(MlxLmConfig.read(write(iters=3, grad_accumulation_steps=4)))


def test_the_written_config_keeps_mlx_lms_intervals(write, tmp_path):
    path = write(iters=100, grad_accumulation_steps=4, steps_per_eval=20, save_every=40)
    (tmp_path / "ours.yaml").write_text(same_run(MlxLmConfig.read(path)).to_yaml())
    config = load_config(file=tmp_path / "ours.yaml").config
    # mlx-lm evaluates after 20, saves after 40 and reports after 10 iterations: updates 5, 10 and 2.
    assert (config.steps_per_eval, config.save_every, config.steps_per_report) == (5, 10, 2)
    assert not {"steps_per_eval", "save_every"} & {one.key for one in explain(path, 100).differences}
