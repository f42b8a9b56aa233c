"""Schedules and blocks are checked with all the other problems, before anything is loaded."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.errors import ConfigError, UsageError
from mlxsched.schedules.defaults import FAMILIES
from mlxsched.schedules.registry import entry, names


@pytest.fixture
def refused(tmp_path):
    def refused(text, **flags):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_config(file=path, flags=flags)
        return str(caught.value).replace(str(path), "run.yaml")

    return refused


@pytest.mark.parametrize(
    ("text", "place", "what"),
    [
        ("schedule: cosin", "run.yaml:1:1: ", "Did you mean 'cosine'"),
        ("seed: 1\nschedule: wsd(dekay=0.1)", "run.yaml:2:1: ", "Did you mean 'decay'"),
        ("schedule: wsd(decay=2.5)", "run.yaml:1:1: ", "`decay`"),
        ("schedule: {name: [1]}", "run.yaml:1:1: ", "must be text"),
        ("schedule: {name: {a: 1}}", "run.yaml:1:1: ", "must be text"),
        ("schedule: {peak: 1}", "run.yaml:1:1: ", "must be text"),
        ("schedule: ''", "run.yaml:1:1: ", ""),
        ("lr_schedule: {name: cosine, arguments: [1, 2]}", "run.yaml:1:15: ", "'cosine_decay'"),
        ("lr_schedule: {name: cosine_decay, arguments: []}", "run.yaml:1:35: ", "must be a list"),
        ("lr_schedule: {name: cosine_decay, arguments: [a, 2]}", "run.yaml:1:35: ", ""),
        ("lr_schedule: {name: cosine_decay, arguments: [1e-5, 0]}", "run.yaml:1:35: ", ""),
    ],
)
def test_a_mistake_in_a_schedule_has_a_place(refused, text, place, what):
    message = refused(text)
    assert message.startswith(place) and what in message


def test_it_comes_with_the_other_problems(refused):
    message = refused("schedule: cosin\nbatch_size: 0\nepochs: many\n")
    assert message.startswith("3 problems")


def test_a_flag_is_named(refused):
    assert refused("seed: 1", schedule="cosin").startswith("--schedule: ")


def test_a_spec_of_absolute_length_is_not_refused_for_the_trial():
    load_config(flags={"schedule": "wsd(decay=20000)"})
    load_config(flags={"schedule": "wsd(shape='geometric')", "end_lr": 1e-6})


@pytest.mark.parametrize("name", sorted({*FAMILIES, *names()}))
def test_every_schedule_s_own_example_passes(name):
    spec = entry(FAMILIES.get(name, name)).spec
    if spec:
        load_config(flags={"schedule": spec})


def test_alpha_is_scale_times_rank(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text('lora_parameters:\n  keys: ["self_attn.q_proj"]\n  rank: 64\n  alpha: 32\n')
    loaded = load_config(file=path)
    assert (loaded.config.lora_parameters.scale, loaded.config.lora_parameters.rank) == (0.5, 64)
    assert loaded.origins["lora_parameters.scale"] == f"{path}:4 (alpha 32 / rank 64)"
    assert load_config(file=path, flags={"lora_parameters.rank": "16"}).config.lora_parameters.scale == 2.0
    assert load_config(file=path, flags={"lora_parameters.scale": "3"}).config.lora_parameters.scale == 3.0
    assert load_config(preset="lora", file=path).config.lora_parameters.scale == 0.5


@pytest.mark.parametrize("alpha", ["0", "-1", "big", "true", "[1]"])
def test_an_alpha_that_makes_no_scale_is_refused(refused, alpha):
    assert "run.yaml:1:19: `lora_parameters.alpha`" in refused(f"lora_parameters: {{alpha: {alpha}}}")


def test_alpha_and_scale_in_one_file_are_refused(refused):
    assert "give alpha or scale" in refused("lora_parameters: {alpha: 8, scale: 2}")


@pytest.mark.parametrize(
    "text", ["name: !!set {a}", "model: !!set {a}", "name: {a: 1}", "preset: [a]", "preset: {a: 1}"]
)
def test_a_set_or_a_mapping_is_no_name(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises((ConfigError, UsageError)):
        load_config(file=path)
