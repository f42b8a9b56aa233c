"""The presets that are shipped: peaks and warmups as promised, each with its reasons."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
import yaml

from mlxsched.config import find_preset, json_schema, list_presets, load_config

# What the reference fixes: range of the peak, schedule, warmup.
PROMISED = {
    "all-purpose": (2e-4, 2e-4, "linear", 300),
    "large-dataset": (1e-4, 1e-4, "cosine", 1000),
    "laptop": (5e-5, 5e-5, "linear", 200),
    "lora": (2e-4, 1e-3, "linear", 100),
    "debug": (0.0, 1.0, "constant", 4),
    "full": (1e-5, 5e-5, "linear", 100),
    "one-cycle": (0.0, 1.0, "one_cycle", 0.3),
    "wsd": (0.0, 1.0, "wsd", 100),
}


def test_these_are_all_the_presets():
    assert {preset.name for preset in list_presets()} == set(PROMISED)


@pytest.mark.parametrize("name", PROMISED)
def test_peak_schedule_and_warmup_are_as_promised(name):
    low, high, schedule, warmup = PROMISED[name]
    (preset,) = [preset for preset in list_presets() if preset.name == name]
    assert low <= preset.peak <= high
    assert (preset.schedule, preset.warmup) == (schedule, warmup)
    assert preset.description


@pytest.mark.parametrize("name", PROMISED)
def test_each_says_when_to_use_it_and_where_its_numbers_come_from(name):
    text = find_preset(name).read_text()
    assert "# When:" in text
    assert f"mlxsched train --preset {name}" in text
    assert "# Where the numbers come from" in text


def test_the_laptop_accumulates_small_portions_and_minds_memory_and_sleep():
    config = load_config(preset="laptop").config
    assert config.batch_size <= 4 < config.batch_size * config.grad_accumulation_steps
    assert config.memory
    assert config.keep_awake
    assert config.lora_plus_ratio > 1


def test_debug_is_over_in_a_minute_and_full_trains_all_weights():
    assert load_config(preset="debug").config.max_time == 60
    assert load_config(preset="full").config.fine_tune_type == "full"


@pytest.mark.parametrize("name", PROMISED)
def test_editors_find_the_schema_in_the_first_line_and_it_accepts_the_preset(name):
    path = find_preset(name)
    first, _, text = path.read_text().partition("\n")
    schema = path.with_name(first.removeprefix("# yaml-language-server: $schema="))
    # PyYAML reads 2e-4 as text; editors, which follow YAML 1.2, and our loader read a number.
    text = re.sub(r"(?<=: )(\d+)(e-\d+)", r"\1.0\2", text)
    values = yaml.safe_load(text)
    jsonschema.validate(values, json.loads(schema.read_text()))


def test_the_schema_beside_the_presets_is_that_of_the_code():
    shipped = json.loads(find_preset("laptop").with_name("schema.json").read_text())
    assert shipped == json_schema(), "run `mlxsched config schema > configs/schema.json`"
