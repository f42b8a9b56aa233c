"""`mlxsched env`: what it reports, with and without a fast BLAS."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mlxsched.cli.main import main


def env_json(**variables: str) -> dict:
    command = [sys.executable, "-m", "mlxsched", "env", "--json"]
    return json.loads(subprocess.check_output(command, env=os.environ | variables, text=True))


def test_json_names_versions_device_memory_and_speed():
    report = env_json()
    assert {"python", "mlxsched", "mlx", "mlx-lm"} <= set(report["versions"])
    assert report["device"] in {"cpu", "gpu"}
    assert report["cores"] >= 1
    assert report["memory_gb"] > 0.5
    assert report["matmul_gflops"] > 0
    assert isinstance(report["keeps_compiled"], bool)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS brings a fast BLAS")
def test_without_openblas_it_says_how_to_get_it():
    report = env_json(MLXSCHED_NO_OPENBLAS="1")
    assert report["blas"] == "reference"
    assert "apt-get install libopenblas0-pthread" in report["advice"]


def test_for_people_it_is_a_table(capsys):
    assert main(["env"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()][-4:] == ["memory", "blas", "distributed", "matmul"]


def test_where_mlx_compiles_at_every_call_it_says_so():
    report = env_json(MLX_DISABLE_COMPILE="1")
    assert report["keeps_compiled"] is False


def test_tune_shows_and_keeps_the_candidates(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))
    monkeypatch.setattr("mlxsched.training.tuning.result.Tuning.is_complete", True)
    monkeypatch.setattr("mlxsched.cli.tune_view.SECONDS", 0.5)
    assert main(["env", "--tune"]) == 0
    out = capsys.readouterr().out
    assert "cross-entropy" in out and "mx.fast" in out and "chosen" in out
    assert main(["env", "--tune", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tuning"]
    assert found["chosen"]["cross-entropy"] in {case["name"] for case in found["cases"]}
    assert main(["cache", "--json"]) == 0
    kinds = [entry["kind"] for entry in json.loads(capsys.readouterr().out)["entries"]]
    assert kinds.count("tuning") == 1


def test_settings_of_a_training_need_tune(capsys):
    assert main(["env", "--preset", "lora"]) == 2
    assert "--tune" in capsys.readouterr().err
