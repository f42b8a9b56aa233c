"""The typed configuration: what it takes, turns round and refuses."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mlxsched.config import RunConfig, json_schema


def problem(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        RunConfig(**values)
    return str(caught.value)


def test_defaults_train_the_bundled_model_for_three_epochs_of_linear_decay():
    config = RunConfig()
    assert (config.model, config.data, config.epochs, config.iters) == ("tiny", "excel", 3.0, None)
    assert (config.schedule, config.warmup, config.val_batches, config.mask_prompt) == (
        "linear",
        0.03,
        -1,
        True,
    )
    assert (config.bias_correction, config.max_grad_norm, config.lora_plus_ratio) == (True, 1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(100, 100), ("100", 100), (0.05, 0.05), ("0.05", 0.05), (250.0, 250), (0, 0)],
)
def test_warmup_tells_updates_from_a_ratio(given, expected):
    warmup = RunConfig(warmup=given).warmup
    assert warmup == expected
    assert type(warmup) is type(expected)


@pytest.mark.parametrize("off", [0, 0.0, "0", None])
def test_clipping_is_off_at_zero(off):
    assert RunConfig(max_grad_norm=off).max_grad_norm is None


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("memory", "6GB", 6_000_000_000),
        ("memory", "0", 0),
        ("prefix_cache", "1000", 1000),
        ("cache_limit", "512 MiB", 512 * 2**20),
        ("clear_cache_threshold", "2G", 2_000_000_000),
        ("max_time", "1h30m", 5400.0),
        ("max_time", "10m", 600.0),
        ("pause_below", "20%", 0.2),
    ],
)
def test_units_are_read_as_people_write_them(key, text, value):
    assert getattr(RunConfig(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ({"warmup": 1.5}, "whole number of updates"),
        ({"warmup": -1}, "greater than or equal to 0"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"learning_rate": float("nan")}, "finite"),
        ({"epochs": float("inf")}, "finite"),
        ({"lora_parameters": {"dropout": 1.0}}, "less than 1"),
        ({"pause_below": "120%"}, "less than 1"),
        ({"memory": "6 apples"}, "such as 6GB"),
        ({"memory": "30"}, "must have a unit"),
        ({"without": "chunks,blokcs"}, "must be any of loss-at-targets, chunks"),
        ({"max_time": "soon"}, "such as 90s"),
        ({"name": "../elsewhere"}, "pattern"),
        ({"iters": True}, "must not be true or false"),
        ({"iters": 10, "epochs": 1}, "give epochs or iters, not both"),
        ({"schedule": "linear", "lr_schedule": {"name": "x", "arguments": [1]}}, "not both"),
        ({"lr_schedule": {"name": "cosine_decay"}}, "Field required"),
        ({"no_such_key": 1}, "not permitted"),
    ],
)
def test_what_makes_no_sense_is_refused(values, part):
    assert part in problem(**values)


def test_iterations_or_an_mlx_lm_schedule_replace_the_defaults_they_contradict():
    config = RunConfig(iters=100, lr_schedule={"name": "cosine_decay", "arguments": [1e-5, 1000]})
    assert (config.epochs, config.schedule) == (None, None)
    assert config.lr_schedule == {"name": "cosine_decay", "arguments": [1e-5, 1000]}


def test_plain_values_round_trip_through_json():
    config = RunConfig(
        warmup=100, memory="6GB", lora_parameters={"rank": 4, "keys": ["mlp.up_proj"]}, iters=7
    )
    assert RunConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_json_schema_describes_every_key_for_editors():
    schema = json_schema()
    assert set(schema["properties"]) == {*RunConfig.model_fields, "preset"}
    assert all(field.description for field in RunConfig.model_fields.values())
    assert schema["additionalProperties"] is False
    json.dumps(schema)


def test_the_json_schema_lets_units_be_text():
    kinds = {key: json.dumps(part) for key, part in json_schema()["properties"].items()}
    for key in ("memory", "clear_cache_threshold", "max_time", "pause_below"):
        assert '"string"' in kinds[key]
    assert '"string"' not in kinds["batch_size"]


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 2**33},
        {"seed": 2**64},
        {"seed": -1},
        {"lora_parameters": {"rank": 2**31}},
        {"lora_parameters": {"rank": 10**400}},
        {"batch_size": 10**18},
        {"iters": 10**18},
        {"epochs": 1e300},
        {"name": "a" * 300},
        {"name": {"a": 1}},
        {"model": "a" * 300},
        {"data": "a/" * 3000},
        {"run_dir": "x\0y"},
        {"adapter_path": ""},
        {"model": "\ud800"},
        {"report_to": "\udcff"},
        {"schedule": {"name": "linear", "\ud800": 1}},
        {"hf_dataset": [{"path": "\ud800"}]},
    ],
    ids=lambda values: ascii(values)[:40],
)
def test_what_no_library_or_file_system_can_hold_is_refused(values):
    assert "RunConfig" in problem(**values)


def test_the_largest_seed_and_rank_are_taken():
    config = RunConfig(seed=2**32 - 1, lora_parameters={"rank": 4096})
    assert (config.seed, config.lora_parameters.rank) == (2**32 - 1, 4096)


def test_weight_decay_goes_to_the_optimizer_that_has_one():
    config = RunConfig(weight_decay=0.1, optimizer_config={"adamw": {"eps": 1e-6, "weight_decay": 0.5}})
    assert config.optimizer_arguments == {"eps": 1e-6, "weight_decay": 0.1}
    assert RunConfig(weight_decay=0.1, optimizer="sgd").optimizer_arguments == {"weight_decay": 0.1}
    assert "adam has no weight decay" in problem(weight_decay=0.1, optimizer="adam")


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor", "lion", "muon"])
def test_every_other_optimizer_of_mlx_takes_a_weight_decay(name):
    from inspect import signature

    import mlx.optimizers as optim

    classes = {made.__name__.lower(): made for made in vars(optim).values() if isinstance(made, type)}
    assert "weight_decay" in signature(classes[name]).parameters
    assert "weight_decay" not in signature(classes["adam"]).parameters


def test_an_unknown_optimizer_in_optimizer_config_is_refused():
    assert "optimizer_config" in problem(optimizer_config={"adamx": {}})


def test_optimizations_are_left_out_by_names_that_exist():
    assert RunConfig(without=" blocks, compile").left_out == {"blocks", "compile"}
    assert RunConfig().left_out == frozenset()
    assert "Did you mean 'blocks'?" in problem(without="block")
