"""``mlxsched config``: the schema judges files as the loader does."""

from __future__ import annotations

import json

import pytest

from mlxsched.cli.main import main
from mlxsched.config import find_preset, list_presets
from mlxsched.config.yaml_file import read_yaml


@pytest.fixture
def validator(capsys):
    jsonschema = pytest.importorskip("jsonschema")
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


@pytest.mark.parametrize("name", [preset.name for preset in list_presets()])
def test_presets_fit_the_schema(name, validator):
    assert list(validator.iter_errors(read_yaml(find_preset(name)).values)) == []


@pytest.mark.parametrize(
    "values",
    [{"learning_rat": 1e-4}, {"batch_size": 0}, {"optimizer": "adamm"}, {"lora_parameters": {"alpha": 8}}],
    ids=str,
)
def test_mistakes_do_not(values, validator):
    assert list(validator.iter_errors(values))


def test_the_schema_is_that_of_presets_schema(capsys):
    assert main(["config", "schema"]) == 0
    ours = capsys.readouterr().out
    assert main(["presets", "schema"]) == 0
    assert capsys.readouterr().out == ours


def test_keys_are_listed_with_their_defaults(capsys):
    assert main(["config", "keys", "--json"]) == 0
    keys = {one["key"]: one["default"] for one in json.loads(capsys.readouterr().out)}
    assert keys["batch_size"] == 8 and keys["lora_parameters.rank"] == 8
    assert main(["config", "keys"]) == 0
    assert "lora_parameters.scale" in capsys.readouterr().out
