"""``mlxsched lr-find``, and the training that takes its result."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlxsched.cli import auto_rate
from mlxsched.cli.main import main
from mlxsched.experiments.rate_finder.result import Found

RUN = ["--iters", "20", "--batch-size", "2", "--num-layers", "1", "--no-test"]


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """A folder and a cache of their own for all tests here, which share one search."""
    patch = pytest.MonkeyPatch()
    place = tmp_path_factory.mktemp("found")
    patch.setenv("MLXSCHED_CACHE", str(place / "cache"))
    patch.chdir(place)
    yield place
    patch.undo()


@pytest.fixture(scope="module")
def found(folder):
    code = main(["lr-find", *RUN, "--budget", "60", "--out", "found.json", "--svg", "found.svg"])
    result = json.loads((folder / "found.json").read_text())
    assert code == (0 if result["conclusive"] else 3)
    return result


def test_the_result_has_the_keys_of_the_contract(found, folder):
    assert {"suggestion", "low", "high", "conclusive", "candidates", "cost_updates"} <= found.keys()
    assert 0 < found["low"] < found["suggestion"] < found["high"]
    assert all({"peak", "updates", "loss"} == one.keys() for one in found["candidates"])
    assert found["cost_updates"] <= 80
    assert "suggestion" in (folder / "found.svg").read_text()


def test_the_same_settings_are_not_searched_again(found, capsys):
    main(["lr-find", *RUN, "--name", "another", "--save-every", "7", "--json"])
    out, err = capsys.readouterr()
    assert json.loads(out) == found and "stored result" in err
    main(["lr-find", *RUN])
    out = capsys.readouterr().out
    assert "Branches" in out and "suggestion" in out and "Cost: " in out
    flags = "--iters 20 --batch-size 2 --no-test --num-layers 1"
    (command,) = [line for line in out.splitlines() if line.startswith("Next: ")]
    assert command.startswith("Next: mlxsched train ") and command.endswith(" --learning-rate auto")
    assert sorted(command.split()[3:-2]) == sorted(flags.split())


def test_auto_trains_at_the_suggestion_and_records_where_it_is_from(found, capsys):
    assert main(["train", *RUN, "--learning-rate", "auto", "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["config"]["learning_rate"] == plan["peak"] == pytest.approx(found["suggestion"])
    assert plan["origins"]["learning_rate"] == "lr-find"
    assert main(["plan", *RUN, "--learning-rate", "auto", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["peak"] == plan["peak"]


def test_auto_is_refused_where_it_cannot_help(found, capsys):
    assert (
        main(["train", *RUN, "--learning-rate", "auto", "--schedule", "constant(peak=1e-3)", "--dry-run"])
        == 2
    )
    assert "a peak of its own" in capsys.readouterr().err
    assert main(["train", *RUN, "--learning-rate", "auto", "--rank", "2", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "Run `mlxsched lr-find`" in err
    assert "The nearest stored search differs in rank (8 there, 2 here)." in err


def test_the_cache_lists_the_result_and_a_damaged_one_is_searched_again(found, folder, capsys):
    assert main(["cache", "--json"]) == 0
    entry = next(e for e in json.loads(capsys.readouterr().out)["entries"] if e["kind"] == "rates")
    assert entry["of"] == "tiny"
    (folder / "cache" / "rates" / entry["path"].rsplit("/")[-1] / "header.json").write_text('{"found": {}}')
    assert main(["train", *RUN, "--learning-rate", "auto", "--dry-run"]) == 2


def test_a_search_that_failed_tells_auto_to_search_again(found, monkeypatch, capsys):
    failed = replace(Found.from_dict(found), suggestion=None, reason="no branch learned anything")
    monkeypatch.setattr(auto_rate, "_found", lambda session, search, plain: failed)
    assert main(["train", *RUN, "--learning-rate", "auto"]) == 1
    assert "lr-find --again" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (["--png", "rates.txt"], "a picture's format"),
        (["--svg", "none/rates.svg"], "No such directory: none"),
        (["--out", "none/rates.json"], "cannot write none/rates.json"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_search(target, why, capsys):
    assert main(["lr-find", *RUN, "--rank", "2", *target]) == 2
    err = capsys.readouterr().err
    assert why in err and "range test" not in err


def test_a_budget_that_is_too_small_says_what_is_enough(capsys):
    assert main(["lr-find", *RUN, "--budget", "5%"]) == 2
    assert "at least 60 updates" in capsys.readouterr().err
