"""mlx-lm's files: the unit of intervals, nulls, keys that mean nothing here, and mlx-lm's own defaults."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.config.mlx_lm import DEFAULTS, SOURCES
from mlxsched.errors import ConfigError


@pytest.fixture
def load(tmp_path):
    def load(text, **more):
        path = tmp_path / "lora.yaml"
        path.write_text(text)
        return load_config(file=path, **more)

    return load


INTERVALS = "steps_per_eval: 200\nsave_every: 100\nsteps_per_report: 10\ngrad_accumulation_steps: 8\n"


def test_the_defaults_are_those_of_the_installed_mlx_lm():
    from mlx_lm.lora import CONFIG_DEFAULTS

    shared = {key: value for key, value in (DEFAULTS | SOURCES).items() if key in CONFIG_DEFAULTS}
    assert shared == {key: CONFIG_DEFAULTS[key] for key in shared}
    # The others have the same default here, or decide nothing about the result.
    assert CONFIG_DEFAULTS.keys() - shared.keys() == {
        *("train", "fine_tune_type", "optimizer_config", "seed", "resume_adapter_file", "test", "config"),
        *("max_seq_length", "grad_checkpoint", "grad_accumulation_steps", "clear_cache_threshold"),
        *("lr_schedule", "lora_parameters", "report_to", "project_name", "trust_remote_code"),
    }


def test_intervals_of_a_file_with_iters_are_iterations(load):
    config = load("iters: 1000\n" + INTERVALS).config
    # After 200, 100 and 10 iterations mlx-lm has made 25, 12 and 1 updates.
    assert (config.steps_per_eval, config.save_every, config.steps_per_report) == (25, 12, 1)


def test_the_accumulation_may_come_from_a_flag(load):
    loaded = load("iters: 1000\nsteps_per_eval: 200\n", flags={"grad_accumulation_steps": "4"})
    assert loaded.config.steps_per_eval == 50
    assert loaded.origins["steps_per_eval"].endswith("lora.yaml:2 (200 iterations)")


def test_intervals_of_a_file_without_iters_and_of_flags_are_updates(load):
    assert load("epochs: 2\n" + INTERVALS).config.steps_per_eval == 200
    assert load("iters: 1000\n" + INTERVALS, flags={"steps_per_eval": "7"}).config.steps_per_eval == 7
    assert load_config(flags={"iters": 90, "grad_accumulation_steps": 3}).config.save_every == 100


def test_as_mlx_lm_takes_its_defaults_and_its_unit(load):
    config = load("train: true\ngrad_accumulation_steps: 4\n", as_mlx_lm=True).config
    for key in DEFAULTS.keys() - {"steps_per_eval", "save_every", "steps_per_report"}:
        assert getattr(config, key) == DEFAULTS[key], key
    assert (config.epochs, config.steps_per_eval, config.save_every) == (None, 50, 25)
    assert (config.model, config.data) == ("tiny", "excel")


def test_the_file_and_flags_override_mlx_lms_defaults(load):
    loaded = load("optimizer: sgd\nepochs: 2\n", as_mlx_lm=True, flags={"num_layers": "3"})
    config = loaded.config
    assert (config.optimizer, config.num_layers, config.epochs, config.iters) == ("sgd", 3, 2.0, None)
    assert loaded.origins["batch_size"] == "mlx-lm's default"


def test_a_block_replaces_mlx_lms_rate(load):
    text = "lr_schedule: {name: cosine_decay, arguments: [1e-4, 100]}"
    config = load(text, as_mlx_lm=True).config
    assert config.lr_schedule["arguments"] == [1e-4, 100] and config.schedule is None


@pytest.mark.parametrize("name", ["AdamW", "ADAMW", "adamw"])
def test_the_optimizer_may_be_written_in_any_case(load, name):
    config = load(f"optimizer: {name}\noptimizer_config: {{{name}: {{eps: 1e-6}}}}").config
    assert (config.optimizer, config.optimizer_arguments) == ("adamw", {"eps": 1e-6})


def test_config_is_ignored_as_in_mlx_lm(load):
    assert load("config: null\nseed: 1").config.seed == 1
    assert load("config: other.yaml\nseed: 1").config.seed == 1


def test_null_means_the_default_as_in_mlx_lm(load):
    text = "optimizer: null\nlora_parameters: null\nbatch_size: null\nseed: null\niters: null\n"
    assert load(text).config == load_config().config
    assert load("lora_parameters: {rank: null, keys: null}").config == load_config().config


def test_null_unsets_what_a_preset_sets(load):
    assert load("preset: laptop\nmemory: null").config.memory is None


def test_train_false_is_refused_unless_the_flag_says_train(load):
    with pytest.raises(ConfigError, match=r"lora\.yaml:1:1: `train: false` .* `mlxsched eval`"):
        load("train: false\ntest: true")
    assert load("train: false", flags={"train": True}).config.train


def test_a_flag_that_replaces_the_block_is_named(load):
    text = "seed: 1\nlr_schedule: {name: cosine_decay, arguments: [1e-5, 100]}"
    origin = load(text, flags={"learning_rate": "1e-4"}).origins["learning_rate"]
    assert origin.startswith("--learning-rate (replaces ") and origin.endswith("lora.yaml:2)")
