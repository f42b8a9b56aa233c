"""``mlxsched runs`` as a user calls it."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from mlxsched.cli.main import cli, main
from mlxsched.runs.directory import RunDirectory


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, status, loss in (("a", "finished", 0.5), ("b", "failed", 0.3), ("c", "finished", 0.4)):
        plan = {"updates": 10, "peak": 1e-4, "schedule": {"name": "wsd" if name == "c" else "warmup_linear"}}
        run = RunDirectory.create(tmp_path / "runs" / name, config={}, origins={}, plan=plan, versions={})
        with run.lock():
            run.update_info(status=status, best={"update": 10, "loss": loss}, update=10)
    return tmp_path / "runs"


def call(*arguments, code=0, **more):
    result = CliRunner().invoke(cli, ["runs", *arguments], **more)
    assert result.exit_code == code, result.output
    return result


def names(*arguments):
    return [run["name"] for run in json.loads(call(*arguments, "--json").stdout)]


def test_the_list_is_sorted_and_filtered(root):
    assert names("--sort", "loss") == ["b", "c", "a"]
    assert names("--sort", "name", "--reverse") == ["c", "b", "a"]
    assert names("--status", "finished", "--sort", "name") == ["a", "c"]
    assert names("--schedule", "wsd") == ["c"]
    assert names("runs/b") == ["b"]


def test_json_has_the_promised_keys(root):
    (run,) = json.loads(call("runs/a", "--json").stdout)
    assert {"name", "path", "status", "updates", "loss", "schedule", "peak", "seconds"} <= set(run)
    assert run["loss"] == 0.5


def test_the_table_names_each_run(root):
    lines = call("--sort", "name").stdout.splitlines()
    assert lines[0].split()[:3] == ["run", "status", "updates"]
    assert [line.split()[0] for line in lines[1:]] == ["runs/a", "runs/b", "runs/c"]


def test_removal_asks_and_removes_only_what_is_listed(root):
    assert "Nothing was removed" in call("--status", "failed", "--remove", input="n\n").stderr
    assert (root / "b").exists()
    assert "Removed runs/b" in call("--status", "failed", "--remove", input="y\n").stderr
    assert sorted(path.name for path in root.iterdir()) == ["a", "c"]
    call("--remove", "--yes")
    assert not any(root.iterdir())


def test_a_place_without_runs_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "No runs in runs. Start one: mlxsched train" in call().stderr
    assert call("--json").stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["no/such"], "There is no directory no/such"), (["--sort", "speed"], "'speed' is not one of")],
)
def test_mistakes_are_usage_errors(root, arguments, message, capsys):
    assert main(["runs", *arguments]) == 2
    assert message in capsys.readouterr().err
