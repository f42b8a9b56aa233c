"""`mlxsched cache`: what it lists, what it removes and what it leaves."""

from __future__ import annotations

import gc
import json
import os

import pytest

from mlxsched.cli.main import main
from mlxsched.platform.caches import hold


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def after_a_run(tmp_path, capsys):
    rows = [json.dumps({"prompt": f"say {i}", "completion": f"ok {i}"}) for i in range(20)]
    (tmp_path / "data").mkdir()
    for split in ("train", "valid"):
        (tmp_path / "data" / f"{split}.jsonl").write_text("\n".join(rows[: 16 if split == "train" else 4]))
    small = ["--iters", "6", "--batch-size", "4", "--num-layers", "2", "--prefix-cache", "1kB", "--no-test"]
    assert main(["train", "--data", "data", *small, "--steps-per-eval", "2"]) == 0
    gc.collect()  # the run was in this process: now it lets go
    capsys.readouterr()


def cache(capsys, *flags):
    assert main(["cache", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_after_a_run_there_are_its_rows_and_its_states(after_a_run, capsys, tmp_path):
    told = cache(capsys)
    assert sorted((entry["kind"], entry["of"]) for entry in told["entries"]) == [
        ("prefix", "tiny"),  # training rows
        ("prefix", "tiny"),  # validation rows
        ("rows", "data"),
    ]
    assert told["size"] == sum(entry["size"] for entry in told["entries"]) > 10_000
    assert told["directory"] == str(tmp_path / "cache")
    assert main(["cache"]) == 0
    streams = capsys.readouterr()
    assert streams.out.count("frozen-prefix activations") == 2
    assert str(tmp_path / "cache") in streams.err
    assert "\x1b" not in streams.out


def test_clear_removes_all_but_what_is_in_use(after_a_run, capsys, tmp_path):
    before = cache(capsys)
    kept = next(entry for entry in before["entries"] if entry["kind"] == "prefix")
    held = hold(tmp_path / kept["path"])
    told = cache(capsys, "--clear")
    assert [(entry["path"], entry["in_use"]) for entry in told["entries"]] == [(kept["path"], True)]
    assert told["removed"] == 2
    assert told["freed"] == before["size"] - kept["size"]
    os.close(held)
    assert main(["cache", "--clear"]) == 0
    assert "Removed 1 entries" in capsys.readouterr().err
    assert cache(capsys)["entries"] == []


def test_without_a_cache_there_is_nothing_to_tell(capsys, tmp_path):
    assert cache(capsys) == {"directory": str(tmp_path / "cache"), "size": 0, "entries": []}
    assert cache(capsys, "--clear")["removed"] == 0
    assert not (tmp_path / "cache").exists()


def test_an_entry_with_a_damaged_header_is_listed_and_goes_too(after_a_run, capsys, tmp_path):
    for header in (tmp_path / "cache").glob("*/*/header.json"):
        header.write_text("{")
    assert [entry["of"] for entry in cache(capsys)["entries"]] == ["", "", ""]
    assert cache(capsys, "--clear")["removed"] == 3
