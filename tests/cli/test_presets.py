"""`mlxsched presets`: the list, the file, the copy."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mlxsched.cli.main import main
from mlxsched.config import find_preset, load_config


def test_the_list_names_peak_schedule_and_warmup(capsys):
    assert main(["presets"]) == 0
    streams = capsys.readouterr()
    line = next(line for line in streams.out.splitlines() if line.startswith("laptop"))
    assert line.split()[:4] == ["laptop", "5e-5", "linear", "200"]
    assert "\x1b" not in streams.out


def test_json_has_the_promised_keys(capsys):
    assert main(["presets", "--json"]) == 0
    presets = json.loads(capsys.readouterr().out)
    assert all(set(preset) >= {"name", "description", "peak", "schedule", "warmup"} for preset in presets)
    assert {"name": "laptop", "peak": 5e-5, "warmup": 200}.items() <= next(
        preset for preset in presets if preset["name"] == "laptop"
    ).items()


def test_show_prints_the_file_as_it_is(capsys):
    assert main(["presets", "show", "wsd"]) == 0
    assert capsys.readouterr().out == find_preset("wsd").read_text()


def test_copy_writes_the_file_and_does_not_overwrite_it_unasked(tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    assert main(["presets", "copy", "laptop", str(target)]) == 0
    first, rest = target.read_text().split("\n", 1)
    assert rest == find_preset("laptop").read_text().split("\n", 1)[1]
    schema = urlsplit(first.removeprefix("# yaml-language-server: $schema="))
    assert (schema.scheme, Path(unquote(schema.path)).name) == (
        "file",
        "schema.json",
    )  # found from any folder
    assert Path(unquote(schema.path)).is_file()
    assert load_config(file=target).config == load_config(preset="laptop").config
    target.write_text("mine: changed")
    assert main(["presets", "copy", "laptop", str(target)]) == 2
    assert "--force" in capsys.readouterr().err
    assert target.read_text() == "mine: changed"
    assert main(["presets", "copy", "laptop", str(target), "--force"]) == 0
    assert target.read_text() == f"{first}\n{rest}"
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_copy_into_a_directory_keeps_the_name_and_a_missing_one_is_refused(tmp_path, capsys):
    assert main(["presets", "copy", "debug", str(tmp_path)]) == 0
    assert (tmp_path / "debug.yaml").exists()
    assert main(["presets", "copy", "debug", str(tmp_path / "no" / "x.yaml")]) == 2
    assert "No such directory" in capsys.readouterr().err


def test_schema_is_that_of_a_config_file(capsys):
    assert main(["presets", "schema"]) == 0
    properties = json.loads(capsys.readouterr().out)["properties"]
    assert {"learning_rate", "lr_schedule", "preset"} <= set(properties)
