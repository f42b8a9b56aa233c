"""`mlxsched env`: what it reports, with and without a fast BLAS."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mlxsched.cli.main import main
from mlxsched.platform.caches import HEADER
from mlxsched.training.tuning.contest import FEWEST
from mlxsched.training.tuning.tuner import Tuner


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
    monkeypatch.setattr("mlxsched.training.tuning.contest.ROUNDS", FEWEST)
    monkeypatch.setattr("mlxsched.training.tuning.contest.TURN", 1e-9)
    monkeypatch.setattr("mlxsched.cli.tune_view.SECONDS", 60.0)  # enough under any load
    short = tmp_path / "short.yaml"
    short.write_text("model: tiny\nmax_seq_length: 64\nbatch_size: 2\nnum_layers: 1\n")
    assert main(["env", "--tune", "-c", str(short)]) == 0
    told = capsys.readouterr()
    assert "cross-entropy" in told.out and "mx.fast" in told.out and "chosen" in told.out
    assert "not enough time" not in told.err
    assert tunings_kept(capsys) == 1
    (kept,) = tmp_path.glob("tuning/*/" + HEADER)
    before = kept.read_text()
    tuning = json.loads(before)["tuning"]
    assert tuning["chosen"]["cross-entropy"] in {case["name"] for case in tuning["cases"]}
    monkeypatch.setattr("mlxsched.cli.tune_view.SECONDS", 1e-9)
    assert main(["env", "--tune", "-c", str(short), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tuning"]["cases"] == []
    assert kept.read_text() == before  # there was no time for an answer


def tunings_kept(capsys) -> int:
    assert main(["cache", "--json"]) == 0
    return [entry["kind"] for entry in json.loads(capsys.readouterr().out)["entries"]].count("tuning")


def test_tune_says_why_there_is_nothing_to_time(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))
    order = []

    def recorded(name, function):
        return lambda *arguments: order.append(name) or function(*arguments)

    monkeypatch.setattr("mlxsched.platform.machine.matmul_gflops", recorded("products", lambda: 1.0))
    monkeypatch.setattr(Tuner, "record", recorded("tuning", Tuner.record))
    (tmp_path / "plain.yaml").write_text("model: tiny\nfast: false\n")
    assert main(["env", "--tune", "-c", str(tmp_path / "plain.yaml")]) == 0
    assert "not timed: `fast` is off. Nothing was stored." in capsys.readouterr().out
    assert order == ["products", "tuning"]


def test_settings_of_a_training_need_tune(capsys):
    assert main(["env", "--preset", "lora"]) == 2
    assert "--tune" in capsys.readouterr().err
