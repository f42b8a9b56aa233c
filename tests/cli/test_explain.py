"""``mlxsched explain`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mlxsched.cli.main import main

CONFIG = (
    "model: tiny\ndata: excel\nbatch_size: 4\niters: 22\ngrad_accumulation_steps: 4\nlearning_rate: 1e-4\n"
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lora.yaml").write_text(CONFIG)


def test_json_has_the_keys_that_scripts_rely_on(capsys):
    assert main(["explain", "lora.yaml", "--rows", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["updates"] == 5 and found["first_rate"] == found["last_rate"] == 1e-4
    assert found["rows_never_seen"] == 20
    assert found["ours"]["updates"] == 6 and found["ours"]["rows_never_seen"] == 12
    assert all(set(one) == {"key", "theirs", "ours"} for one in found["differences"])


def test_rows_are_counted_where_the_data_is_at_hand(capsys, tmp_path):
    assert main(["explain", "lora.yaml", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_never_seen"] > 1000
    Path("mine").mkdir()
    Path("mine/train.jsonl").write_text('{"text": "a"}\n' * 30)
    assert main(["explain", "lora.yaml", "--data", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows_never_seen"] == 2
    assert main(["explain", "lora.yaml", "--data", "org/not-here"]) == 0
    out, err = capsys.readouterr()
    assert "--rows" in err and "rows never trained on" in out


def test_the_text_names_lines_and_differences(capsys):
    assert main(["explain", "lora.yaml", "--rows", "100"]) == 0
    out = capsys.readouterr().out
    assert "5 updates of 16 rows; the last 2 iterations have no effect" in out
    assert "bias_correction" in out and "falls linearly to 0" in out
    assert "rows never trained on" in out and "rows_never_seen" not in out


def test_the_written_file_is_planned_and_never_overwritten(capsys):
    assert main(["explain", "lora.yaml", "--rows", "100", "--write", "ours.yaml"]) == 0
    capsys.readouterr()
    assert main(["plan", "-c", "ours.yaml", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["updates"] == 5
    assert main(["explain", "lora.yaml", "--write", "ours.yaml"]) == 2


def test_mistakes_get_one_message(capsys):
    assert main(["explain", "missing.yaml"]) == 2
    Path("bad.yaml").write_text("iters: 1.5\n")
    assert main(["explain", "bad.yaml"]) == 2
    assert "bad.yaml:1:1" in capsys.readouterr().err
