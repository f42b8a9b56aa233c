"""The command: keys that scripts rely on, a table for people, progress on stderr."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mlxsched.cli.main import cli

SHORT = ["bench", "--rounds", "1", "--rows", "16", "--batch-size", "4", "--num-layers", "2"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))


def test_json_has_the_promised_keys():
    result = CliRunner().invoke(
        cli, [*SHORT, "--json", "--data", "synthetic:lognormal", "--max-seq-length", "128"]
    )
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)
    assert {"speedup", "peak_memory_ratio", "later_epochs_speedup", "loss_difference"} <= values.keys()
    assert 0 < values["peak_memory_ratio"] < 1
    assert values["rows"] == 16
    assert 0 < values["targets"] < values["tokens"] <= 16 * 127
    assert values["mlx_lm"]["padding"] > values["mlxsched"]["padding"] >= 0
    assert "round 1/1" in result.stderr


def test_a_table_for_people():
    result = CliRunner().invoke(cli, [*SHORT, "--no-epochs-later", "--no-evaluation"])
    assert result.exit_code == 0, result.output
    assert "real tokens/s" in result.stdout
    assert "later epochs" not in result.stdout
    assert "\x1b" not in result.output


def test_unknown_synthetic_data_is_a_usage_error():
    from mlxsched.cli.main import main

    assert main([*SHORT, "--data", "synthetic:nothing"]) == 2
