"""A stranger's file may neither run code nor write outside of the current folder."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.errors import ConfigError


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, **flags):
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(file=path, flags=flags).config

    return load


def test_code_is_trusted_by_the_command_line_only(load):
    with pytest.raises(ConfigError, match=r"run\.yaml:2:1: .*give --trust-remote-code"):
        load("seed: 1\ntrust_remote_code: true\n")
    assert load("trust_remote_code: false\n").trust_remote_code is False
    assert load("trust_remote_code: true\n", trust_remote_code=True).trust_remote_code is True
    assert load("trust_remote_code: true\n", trust_remote_code=False).trust_remote_code is False


@pytest.mark.parametrize("value", ["yes", "'true'", "1", "[true]"])
def test_no_spelling_of_true_is_let_through(load, value):
    with pytest.raises(ConfigError):
        load(f"trust_remote_code: {value}\n")


@pytest.mark.parametrize("key", ["adapter_path", "run_dir"])
@pytest.mark.parametrize("value", ["/etc/x", "../x", "a/../../x", "~/x", "~nobody-of-this-name/x", "link/x"])
def test_a_file_does_not_write_elsewhere(load, tmp_path, key, value):
    (tmp_path / "link").symlink_to("/usr")
    with pytest.raises(ConfigError, match=rf"run\.yaml:1:1: .*--{key.replace('_', '-')} "):
        load(f"{key}: {value}\n")
    assert getattr(load(f"{key}: {value}\n", **{key: "/srv/mine"}), key) == "/srv/mine"


@pytest.mark.parametrize("value", ["adapters", "./a/b", "a/../b", "."])
def test_below_the_current_folder_it_may(load, value):
    assert load(f"adapter_path: {value}\n").adapter_path == value


def test_so_it_may_by_an_absolute_path(load, tmp_path):
    assert load(f"adapter_path: {tmp_path}/x\n").adapter_path == f"{tmp_path}/x"


def test_a_hub_data_set_has_no_say_about_the_cache(load):
    with pytest.raises(ConfigError, match="'cache_dir'"):
        load("hf_dataset: {path: x, config: {cache_dir: /tmp/elsewhere}}")
    assert load("hf_dataset: {path: x, config: {name: en}}").hf_dataset["config"] == {"name": "en"}
