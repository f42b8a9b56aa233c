"""Prepared cases, and the file that people send."""

from __future__ import annotations

import getpass
import importlib.util
import json
import socket
import sys
from pathlib import Path

import pytest

from mlxsched.bench import cases
from mlxsched.bench.cases import CASES, Case, memory_needed, obstacle
from mlxsched.bench.shapes import config_of, count, random_model
from mlxsched.bench.share import document, read_shared
from mlxsched.cli.main import main
from mlxsched.errors import UserError
from mlxsched.model.trees import flatten
from mlxsched.platform.blas import threads, use_threads

SMALL = Case("bundled model", "tiny", trained=2, rows=8, rounds=1, longest=48, gpu=False)


SMALLER = Case("the same", "tiny", trained=1, rows=4, rounds=1, longest=24, gpu=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The file of two small cases, with all others skipped."""
    path = tmp_path_factory.mktemp("share") / "machine.json"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLXSCHED_CACHE", str(path.parent / "cache"))
        patched.setitem(CASES, "bundled", SMALL)
        patched.setitem(CASES, "llama-135m", SMALLER)
        patched.setattr(cases, "SECONDS", 1.0)
        patched.setattr("mlxsched.training.memory_plan.usable_memory", lambda: 10**10)
        assert main(["bench", "--share", str(path)]) == 0
    return path


def test_the_file_has_ratios_and_why_cases_are_missing(shared):
    found = read_shared(shared)
    assert list(found["cases"]) == ["bundled", "llama-135m"]
    case = found["cases"]["bundled"]
    assert case["speedup"] > 0 and 0 < case["peak_memory_ratio"] < 10 and case["loss_difference"] < 1e-4
    assert {one["kind"] for one in case["candidates"]} >= {"cross-entropy", "step"}
    assert set(found["skipped"]) == set(CASES) - {"bundled", "llama-135m"}
    assert shared.stat().st_size < 20_000


@pytest.mark.skipif(threads() is None, reason="there are no threads to set")
def test_each_case_has_the_threads_of_its_own_width(monkeypatch):
    before = threads()
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("mlxsched.model.load.cores", lambda: 2)
    changes = {"num_hidden_layers": 1, "vocab_size": 256, "hidden_size": 144, "intermediate_size": 64}
    monkeypatch.setattr(cases, "config_of", lambda name: config_of(name, **changes))
    try:
        for shape, expected in (("tiny", 1), ("llama-135m", 2), ("tiny", 1)):
            cases._model(Case("", shape))
            assert threads() == expected
    finally:
        use_threads(before)


def test_the_file_has_no_paths_and_no_names(shared):
    text = shared.read_text()
    for secret in (socket.gethostname(), str(Path.home()), str(Path.cwd()), str(shared.parent)):
        assert secret not in text
    assert "/" not in json.dumps(json.loads(text)["machine"])
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in text


def test_the_table_names_the_machine_and_a_damaged_file_is_left_out(shared, tmp_path, capsys):
    script = Path(__file__).parents[2] / "benchmarks" / "machines_table.py"
    spec = importlib.util.spec_from_file_location("machines_table", script)
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    (tmp_path / "a.json").write_text(shared.read_text())
    (tmp_path / "b.json").write_text('{"format": 1, "machine": {}, "versions": {}, "cases": {"x": {}}}')
    (tmp_path / "c.json").write_text("{")
    lines = table.table(tmp_path)
    assert len(lines) == 4 and "bundled model, float32, 8 rows" in lines[2]
    counts = [case["blas_threads"] for case in read_shared(shared)["cases"].values()]
    assert ("tokens, 1 BLAS thread" in lines[3]) == (counts == [1, 1])
    told = capsys.readouterr().err
    assert "b.json is left out" in told and "c.json is left out" in told


def test_an_existing_file_is_not_overwritten(shared, capsys):
    before = shared.read_bytes()
    assert main(["bench", "--share", str(shared)]) == 2
    assert "Give --share another name" in capsys.readouterr().err
    assert shared.read_bytes() == before


def test_a_case_that_does_not_fit_says_how_much_it_needs(monkeypatch, capsys):
    monkeypatch.setattr("mlxsched.training.memory_plan.usable_memory", lambda: 3 * 10**9)
    assert main(["bench", "--case", "qwen3-4b-4bit"]) == 2
    told = capsys.readouterr().err
    assert "skipped, it needs about 7,332.2 MB, and this machine can spare 3,000.0 MB" in told
    assert "nothing was measured. qwen3-4b-4bit: it needs about 7,332.2 MB" in told


@pytest.mark.parametrize("flags", (["--model", "nosuch"], ["--rounds", "5"], ["--no-evaluation"]))
def test_a_flag_that_a_case_would_ignore_is_refused(flags, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mlxsched.cli.bench_cases.measure", None)
    for start in (["--case", "bundled"], ["--share", str(tmp_path / "share.json")]):
        assert main(["bench", *start, *flags]) == 2
        assert f"{flags[0]} has no effect" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_is_measured_is_written_at_once(tmp_path, monkeypatch):
    def measured(case, tell):
        if case is SMALL:
            raise KeyboardInterrupt
        return {"title": case.title}

    monkeypatch.setattr("mlxsched.cli.bench_cases.measure", measured)
    monkeypatch.setattr("mlxsched.training.memory_plan.usable_memory", lambda: 10**10)
    monkeypatch.setitem(CASES, "llama-135m", SMALL)
    path = tmp_path / "machine.json"
    assert main(["bench", "--case", "bundled", "--case", "llama-135m", "--share", str(path)]) != 0
    assert read_shared(path)["cases"] == {"bundled": {"title": CASES["bundled"].title}}


@pytest.mark.skipif(sys.platform != "linux", reason="a folder that not even root can write to")
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("mlxsched.cli.bench_cases.measure", None)
    assert main(["bench", "--share", "/proc/share.json"]) == 2
    assert "/proc/share.json can't be written" in capsys.readouterr().err
    assert main(["bench", "--share", str(tmp_path / "no" / "share.json")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_slow_case_runs_only_if_it_is_named():
    case = CASES["qwen3-0.6b-bf16"]
    assert case.gpu and memory_needed(case) < 16e9
    assert obstacle(Case("", "tiny"), asked=True) is None


def test_a_file_of_a_later_version_is_refused(tmp_path):
    (tmp_path / "later.json").write_text(json.dumps({**document({}, {}), "format": 2}))
    with pytest.raises(UserError, match="format must be 1; got 2"):
        read_shared(tmp_path / "later.json")


def test_parameters_are_counted_as_they_are_made(capsys):
    config = config_of("qwen3-0.6b", num_hidden_layers=2, vocab_size=1000)
    random_model(config_of("qwen3-0.6b", num_hidden_layers=1, vocab_size=256), "4-bit")
    assert capsys.readouterr().out == ""  # which is for JSON
    made = sum(value.size for value in flatten(random_model(config).parameters()).values())
    assert count(config) == pytest.approx(made, rel=1e-3)
    assert cases.BYTES.keys() == {"float32", "bfloat16", "4-bit"}
