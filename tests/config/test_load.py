"""Flag over file over preset over default, with the origin of each value."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.errors import ConfigError, UsageError

# Every key of mlx-lm's documented sample, with values of our own.
MLX_LM_CONFIG = """\
# The model
model: "some/model"

train: true
fine_tune_type: lora
optimizer: adamw
optimizer_config:
  adamw:
    betas: [0.9, 0.98]
    eps: 1e-6
    weight_decay: 0.05
    bias_correction: true
data: "/some/data"
seed: 0
num_layers: 16
batch_size: 4
iters: 1000
val_batches: 25
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
resume_adapter_file: null
adapter_path: "adapters"
save_every: 100
test: false
test_batches: 100
max_seq_length: 2048
grad_checkpoint: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]
  rank: 8
  scale: 20.0
  dropout: 0.0
lr_schedule:
  name: cosine_decay
  warmup: 100 # 0 for no warmup
  warmup_init: 1e-7 # 0 if not specified
  arguments: [1e-5, 1000, 1e-7]
hf_dataset:
  path: "billsum"
  train_split: "train[:1000]"
  prompt_feature: "text"
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "run.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_flag_beats_a_file_beats_a_preset_beats_the_default(write):
    path = write("preset: laptop\nbatch_size: 16\nseed: 5\n")
    loaded = load_config(file=path, flags={"seed": "7"})
    assert (loaded.config.seed, loaded.config.batch_size, loaded.config.lora_plus_ratio) == (7, 16, 16)
    assert loaded.origins["seed"] == "--seed"
    assert loaded.origins["batch_size"] == f"{path}:2"
    assert loaded.origins["lora_plus_ratio"] == "preset laptop"
    assert loaded.origins["optimizer"] == "default"


def test_the_preset_of_the_command_line_beats_the_preset_of_the_file(write):
    loaded = load_config(preset="debug", file=write("preset: laptop\n"))
    assert loaded.origins["warmup"] == "preset debug"


def test_nested_parameters_merge_key_by_key(write):
    path = write("lora_parameters: {scale: 5}\n")
    loaded = load_config(preset="laptop", file=path, flags={"lora_parameters.dropout": "0.1"})
    lora = loaded.config.lora_parameters
    assert (lora.rank, lora.scale, lora.dropout, lora.keys) == (32, 5.0, 0.1, None)
    assert [loaded.origins[f"lora_parameters.{key}"] for key in ("rank", "scale", "dropout", "keys")] == [
        "preset laptop",
        f"{path}:1",
        "--dropout",
        "default",
    ]


def test_a_flag_that_switches_off_is_named_as_it_was_typed():
    assert load_config(flags={"fast": False}).origins["fast"] == "--no-fast"


@pytest.mark.parametrize(
    ("low", "flags", "key", "value", "gone"),
    [
        ("epochs: 2", {"iters": "10"}, "iters", 10, "epochs"),
        ("iters: 10", {"epochs": "0.5"}, "epochs", 0.5, "iters"),
        ("iters: 10", {"steps": "5"}, "steps", 5, "iters"),
        ("epochs: 2", {"steps": "5"}, "steps", 5, "epochs"),
        ("steps: 5", {"iters": "10"}, "iters", 10, "steps"),
        ("lr_schedule: {name: x, arguments: [1]}", {"schedule": "wsd"}, "schedule", "wsd", "lr_schedule"),
        (
            "lr_schedule: {name: x, arguments: [1]}",
            {"learning_rate": "1e-4"},
            "learning_rate",
            1e-4,
            "lr_schedule",
        ),
    ],
)
def test_a_key_takes_its_rivals_out_of_the_layers_below(write, low, flags, key, value, gone):
    loaded = load_config(file=write(low), flags=flags)
    assert getattr(loaded.config, key) == value
    assert getattr(loaded.config, gone) is None
    assert loaded.origins[gone] == "default"


def test_an_mlx_lm_schedule_in_a_file_replaces_that_of_the_preset(write):
    path = write("lr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}")
    loaded = load_config(preset="laptop", file=path)
    assert loaded.config.schedule is None
    assert loaded.origins["learning_rate"] == "default"


@pytest.mark.parametrize("rivals", [("epochs", "iters"), ("epochs", "steps"), ("iters", "steps")])
def test_rivals_in_one_layer_are_refused_with_both_places(write, rivals):
    first, second = rivals
    path = write(f"{second}: 10\nmodel: x\n{first}: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file=path)
    assert str(caught.value) == (
        f"{path}:3:1 and {path}:1:1: give {first} or {second}, not both: both say how long to train."
    )


def test_a_warmup_that_an_mlx_lm_schedule_would_ignore_is_refused(write):
    path = write("seed: 1\nlr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(preset="laptop", file=path, flags={"warmup": "10"})
    assert str(caught.value) == (
        f"--warmup: `warmup` does not change the lr_schedule of {path}:2:1. Change it there."
    )


def test_a_null_takes_nothing_out_of_the_layers_below(write):
    assert load_config(preset="debug", file=write("epochs: null")).config.iters == 40


def test_an_mlx_lm_config_loads_unchanged(write):
    path = write(MLX_LM_CONFIG)
    loaded = load_config(file=path)
    config = loaded.config
    assert (config.model, config.iters, config.learning_rate, config.epochs) == (
        "some/model",
        1000,
        1e-5,
        None,
    )
    assert config.lora_parameters.keys == ["self_attn.q_proj", "self_attn.v_proj"]
    assert config.lr_schedule == {
        "name": "cosine_decay",
        "warmup": 100,
        "warmup_init": 1e-7,
        "arguments": [1e-5, 1000, 1e-7],
    }
    assert config.optimizer_config["adamw"]["eps"] == 1e-6
    assert loaded.origins["learning_rate"] == f"{path}:19"


def test_all_problems_come_in_one_message_each_with_its_place(write):
    path = write(
        "lerning_rate: 1e-4\niters: many\niters: 3\nlora_parameters:\n  rnk: 8\n  keys: [1]\n"
        "schedule: [1]\nlr_schedule: {name: x, arguments: [1], wramup: 3}\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file=path, flags={"batch_size": "0", "optimizer": "adm"})
    first, *problems = str(caught.value).splitlines()
    assert first == "8 problems in the configuration:"
    assert [problem.removeprefix("  ") for problem in problems] == [
        "--batch-size: `batch_size` must be greater than 0; got '0'.",
        "--optimizer: `optimizer` must be 'adam', 'adamw', 'muon', 'sgd', 'adafactor' or 'lion'; got 'adm'.",
        f"{path}:1:1: unknown key `lerning_rate`. Did you mean 'learning_rate'?",
        f"{path}:3:1: `iters` is given twice, first on line 2. Remove one.",
        f"{path}:5:3: unknown key `rnk`. Did you mean 'rank'?",
        f"{path}:6:10: `lora_parameters.keys[0]` must be text; got 1.",
        f"{path}:7:1: `schedule` must be text or a mapping; got [1].",
        f"{path}:8:40: unknown key `wramup`. Did you mean 'warmup'?",
    ]


def test_a_type_error_names_line_and_column(write):
    path = write("model: x\nlora_parameters:\n  rank: big\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file=path)
    assert str(caught.value) == f"{path}:3:3: `lora_parameters.rank` must be a whole number; got 'big'."


def test_an_unknown_preset_gets_a_suggestion(write):
    with pytest.raises(UsageError, match="No such preset: 'lptop'. Did you mean 'laptop'?"):
        load_config(preset="lptop")
    with pytest.raises(UsageError, match="all-purpose, debug, full"):
        load_config(file=write("preset: xyz\n"))


@pytest.mark.parametrize("length", [{"iters": "200"}, {"epochs": "2"}, {"steps": "50"}])
def test_a_given_length_replaces_the_time_limit_of_a_preset(length):
    (key,) = length
    loaded = load_config(preset="debug", flags=length)
    assert loaded.config.max_time is None
    assert loaded.origins[key] == f"--{key} (lifts max_time of preset debug)"
    assert load_config(preset="debug", flags={**length, "max_time": "5m"}).config.max_time == 300
    assert load_config(preset="debug").config.max_time == 60


def test_a_length_that_replaces_another_one_still_says_that_it_lifts_the_limit(write):
    file = write("iters: 1000\n")
    loaded = load_config(preset="debug", file=file, flags={"epochs": 2.0})
    assert (loaded.config.iters, loaded.config.max_time) == (None, None)
    assert loaded.origins["epochs"] == "--epochs (lifts max_time of preset debug)"
    limited = load_config(preset="debug", file=file, flags={"epochs": 2.0, "max_time": "5m"})
    assert (limited.config.max_time, limited.origins["epochs"]) == (300, "--epochs")


def test_a_given_length_keeps_the_time_limit_of_a_file(write):
    assert load_config(file=write("max_time: 1h\n"), flags={"iters": "200"}).config.max_time == 3600


@pytest.mark.parametrize("none", ["none", "None", " none "])
def test_none_lifts_a_time_limit(none, write):
    assert load_config(preset="debug", flags={"max_time": none}).config.max_time is None
    assert load_config(preset="debug", file=write("max_time: none\n")).config.max_time is None
    with pytest.raises(ConfigError, match="must be a duration"):
        load_config(flags={"max_time": "nothing"})
