"""A model directory from a stranger: refused before it hangs a reader or fills the memory."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from mlxsched.bundled import model_path
from mlxsched.cli.main import main
from mlxsched.errors import ModelError
from mlxsched.model.load import resolve_model
from mlxsched.model.untrusted import check_model_directory


@pytest.fixture
def directory(tmp_path):
    return shutil.copytree(model_path("tiny"), tmp_path / "model")


def test_the_bundled_model_passes_also_through_links(directory, tmp_path):
    check_model_directory(directory)
    (tmp_path / "linked").mkdir()
    for file in directory.iterdir():
        (tmp_path / "linked" / file.name).symlink_to(file)
    check_model_directory(tmp_path / "linked")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "more.json"])
def test_a_pipe_among_the_files_is_refused_and_not_waited_for(directory, name):
    (directory / name).unlink(missing_ok=True)
    os.mkfifo(directory / name)
    with pytest.raises(ModelError, match=r"not a regular file|holds no config\.json"):
        resolve_model(str(directory))


@pytest.mark.parametrize("value", [10**9, 1e9, -1, 10**400])
@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layers", "num_local_experts", "n_layer"])
@pytest.mark.parametrize("nested", [False, True])
def test_an_absurd_number_of_layers_is_refused_before_it_is_built(directory, key, value, nested, capsys):
    config = json.loads((directory / "config.json").read_text())
    config.update({"text_config": {key: value}} if nested else {key: value})
    (directory / "config.json").write_text(json.dumps(config))
    assert main(["plan", "--model", str(directory)]) == 2
    assert f"{key} must be from 0 to 10,000" in capsys.readouterr().err


@pytest.mark.parametrize("content", ["[", "[]", "\ud800"])
def test_a_config_that_is_no_object_is_named(directory, content):
    (directory / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError, match=r"config\.json"):
        resolve_model(str(directory))
