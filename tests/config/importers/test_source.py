"""Files of strangers: bounded, plain data only, and each key with its line."""

from __future__ import annotations

import json
import os

import pytest

from mlxsched.config.importers.source import LARGEST, read_source
from mlxsched.errors import ConfigError


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_keys_of_json_know_their_lines(indent, tmp_path):
    values = {"a": {"b": "x\n}"}, "c,": [1, {"d": 2}], "é\\": "\N{GRINNING FACE}", "e": 1e-5}
    path = tmp_path / "x.json"
    path.write_text(json.dumps(values, indent=indent))
    source = read_source(path)
    assert source.values == values
    for key in values:
        row = path.read_text().splitlines()[source.lines[key] - 1]
        assert json.dumps(key) in row


def test_keys_of_yaml_know_their_lines(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("# comment\na: 1e-4\nb:\n  c: 2\nd: x\n")
    source = read_source(path)
    assert source.values == {"a": 1e-4, "b": {"c": 2}, "d": "x"}
    assert [source.lines[key] for key in "abd"] == [2, 3, 5]
    assert source.place("d") == "x.yaml:5"


def bomb() -> str:
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.yaml", bomb(), "aliases"),
        ("x.yaml", "a: &a [*a]", "aliases"),
        ("x.yaml", "a: !!python/object/apply:os.system ['true']", "x.yaml:1:4"),
        ("x.yaml", "a: [1\nb: 2", "not valid YAML"),
        ("x.yaml", "[" * 5000, "YAML|deep"),
        ("x.yaml", "- a", "key: value"),
        ("x.json", "[" * 100_000, "not valid JSON"),
        ("x.json", '{"a": 1,\n}', r"x.json:[12]:\d+"),
        ("x.json", "[1]", "JSON object"),
        ("x.json", '{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ("x.json", b"\xff\xfe", "UTF-8"),
        ("x.json", b" " * (LARGEST + 1), "bytes"),
        ("training_args.bin", b"PK", "pickle"),
    ],
)
def test_what_is_not_plain_data_is_refused(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=said):
        read_source(path)


def test_a_pipe_and_a_missing_file_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ConfigError, match="regular file"):
        read_source(tmp_path / "pipe.json")
    with pytest.raises(ConfigError, match="No such file"):
        read_source(tmp_path / "none.json")
    with pytest.raises(ConfigError, match="regular file|directory"):
        read_source(tmp_path)
