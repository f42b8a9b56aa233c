"""YAML with positions: numbers, marks, duplicates and files that are no YAML."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlxsched.config.yaml_file import read_yaml
from mlxsched.errors import ConfigError


@pytest.fixture
def write(tmp_path):
    def write(content: str | bytes):
        path = tmp_path / "run.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("2E4", 2e4), ("1.5e3", 1500.0), (".5e-3", 0.0005), ("-1e+2", -100.0), ("1_0e1", 100.0)],
)
def test_numbers_with_an_exponent_are_numbers(write, text, value):
    read = read_yaml(write(f"x: {text}")).values["x"]
    assert read == value
    assert isinstance(read, float)


def test_what_only_looks_like_a_number_stays_text(write):
    assert read_yaml(write("a: 1e\nb: e5\nc: '1e-5'")).values == {"a": "1e", "b": "e5", "c": "1e-5"}


def test_other_yaml_of_the_process_is_left_alone():
    code = "import mlxsched.config.yaml_file, yaml; print(yaml.safe_load('1e-5').__class__.__name__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "str"


def test_positions_of_keys_nested_keys_and_items(write):
    path = write("# comment\nmodel: x\nlora_parameters:\n  rank: 8\n  keys: [a, b]\n")
    file = read_yaml(path)
    assert file.place("model") == f"{path}:2:1"
    assert file.place("lora_parameters", "rank") == f"{path}:4:3"
    assert file.place("lora_parameters", "keys", 1) == f"{path}:5:13"
    assert file.place("lora_parameters", "missing") == f"{path}:3:1"
    assert file.line("lora_parameters", "rank") == f"{path}:4"


def test_keys_given_twice_are_all_told_at_any_depth(write):
    path = write("a: 1\nb: {c: 1, c: 2}\na: 2\n")
    problems = read_yaml(path).problems
    assert problems == [
        f"{path}:2:11: `c` is given twice, first on line 2. Remove one.",
        f"{path}:3:1: `a` is given twice, first on line 1. Remove one.",
    ]


def test_what_json_could_not_hold_is_told(write):
    path = write("a: 2026-01-02\n5: x\nb: {null: 1}\nc: !!set {d}\nd: {<<: {e: 1}}\n")
    assert read_yaml(path).problems == [
        f"{path}:1:1: the value of `a` is read as a timestamp. Put it in quotes.",
        f"{path}:2:1: the key `5` is not text. Put it in quotes.",
        f"{path}:3:5: the key `null` is not text. Put it in quotes.",
        f"{path}:4:1: the value of `c` is read as a set. Put it in quotes.",
    ]


def test_an_empty_file_is_an_empty_mapping(write):
    assert read_yaml(write("# nothing\n")).values == {}


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("a: [1, 2\nb: 3", "run.yaml:2:2: not valid YAML"),
        ("a: 'open", "not valid YAML"),
        ("a:\n\tb: 1", "run.yaml:2:1: not valid YAML"),
        ("- a\n- b", "run.yaml:1:1: must hold `key: value` lines; got list"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("a: *nowhere", "run.yaml:1:4: not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("a: 2026-99-99", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("? [1]\n: 2", "not valid YAML"),
    ],
)
def test_what_is_no_yaml_mapping_is_refused_with_its_place(write, content, part):
    with pytest.raises(ConfigError, match=r"run\.yaml") as caught:
        read_yaml(write(content))
    assert part in str(caught.value)


def test_a_missing_file_or_a_directory_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"No such config file: .*nope\.yaml"):
        read_yaml(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path)


def test_our_floats_agree_with_yaml_1_2_where_pyyaml_does_not(write):
    assert yaml.safe_load("x: 1e-5 ") in (
        {"x": "1e-5"},
        {"x": 1e-5},
    )  # the latter once mlx_lm.lora is imported
    assert read_yaml(write("x: 1e-5")).values == {"x": 1e-5}


def test_aliases_that_stand_for_gigabytes_are_refused_at_once(tmp_path):
    # 594 bytes that PyYAML expands to more than a gigabyte.
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        read_yaml(path)


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}", "a: &a {<<: [*a, *a]}"])
def test_an_alias_of_itself_is_refused(tmp_path, text):
    path = tmp_path / "loop.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="aliases|not valid YAML"):
        read_yaml(path)


def test_merge_keys_do_not_grow_either(tmp_path):
    lines = ["a0: &a0 {x: 1}"] + [
        f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)
    ]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="aliases"):
        read_yaml(path)


def test_a_few_aliases_and_a_long_list_are_fine(tmp_path):
    path = tmp_path / "fine.yaml"
    path.write_text("a: &a {b: 1}\nc: *a\nd: [" + ", ".join(["1"] * 50_000) + "]\n")
    values = read_yaml(path).values
    assert values["c"] == {"b": 1} and len(values["d"]) == 50_000


def test_an_endless_file_is_refused():
    with pytest.raises(ConfigError, match="larger than 10 MB"):
        read_yaml(Path("/dev/zero"))
