"""``mlxsched import`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlxsched.cli.main import main

ARGUMENTS = (
    '{\n  "output_dir": "o",\n  "learning_rate": 0.0002,\n  "max_steps": 40,\n  "neftune_noise_alpha": 5\n}\n'
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("args.json").write_text(ARGUMENTS)


def test_the_result_goes_to_stdout_and_leftovers_to_stderr(capsys):
    assert main(["import", "args.json"]) == 0
    out, err = capsys.readouterr()
    assert "learning_rate: 0.0002  # from args.json:3 learning_rate" in out
    assert "args.json:5 neftune_noise_alpha: 5" in out and "args.json:5 neftune_noise_alpha: 5" in err


def test_a_written_file_is_planned_and_never_overwritten(capsys):
    assert main(["import", "args.json", "--write", "mine.yaml"]) == 0
    assert "mlxsched plan -c mine.yaml" in capsys.readouterr().err
    assert main(["plan", "-c", "mine.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["updates"] == 40 and plan["schedule"]["peak"] == 2e-4
    assert main(["import", "args.json", "--write", "mine.yaml"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["import", "args.json", "--write", "mine.yaml", "--force"]) == 0
    assert main(["import", "args.json", "--write", "no/such/mine.yaml"]) == 2


def test_json(capsys):
    assert main(["import", "args.json", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["config"]["iters"] == 40
    assert {"key", "value", "origin", "note"} <= data["entries"][0].keys()
    assert [one["key"] for one in data["no_counterpart"]] == ["output_dir", "neftune_noise_alpha"]


def test_mistakes_get_one_message(capsys):
    assert main(["import"]) == 2
    assert main(["import", "missing.json"]) == 2
    assert main(["import", "args.json", "--from", "axolot"]) == 2
    assert "axolotl" in capsys.readouterr().err


def test_rows_of_a_data_set_are_told_from_a_configuration(capsys):
    Path("rows.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    assert main(["import", "rows.jsonl"]) == 2
    assert (
        "rows.jsonl holds rows, not a configuration. To train on them: mlxsched train --data rows.jsonl"
        in (capsys.readouterr().err)
    )
