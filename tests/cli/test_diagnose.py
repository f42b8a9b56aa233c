"""``mlxsched diagnose`` and the verdict at the end of a run, on real trainings."""

from __future__ import annotations

import json

import pytest

from mlxsched.cli.main import main
from mlxsched.render.report import ReportedRun, report_html
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade

SHORT = [
    "--iters",
    "24",
    "--batch-size",
    "4",
    "--val-batches",
    "4",
    "--no-test",
    "--steps-per-eval",
    "4",
    "--plain",
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A healthy run and one whose rate is far too high, with what was printed at their end."""
    root = tmp_path_factory.mktemp("runs")
    rates = {"good": ["--learning-rate", "5e-4"], "bad": ["--learning-rate", "2", "--max-grad-norm", "0"]}
    codes = {}
    for name, flags in rates.items():
        codes[name] = main(["train", "--run-dir", str(root / name), *SHORT, *flags])
    assert codes == {"good": 0, "bad": 1}
    return root


def told(run, capsys):
    code = main(["diagnose", str(run), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_healthy_run(runs, capsys):
    code, found = told(runs / "good", capsys)
    assert (code, found["healthy"]) == (0, True)
    assert main(["diagnose", str(runs / "good")]) == 0
    assert "is healthy over 24 updates" in capsys.readouterr().err


def test_a_diverged_run(runs, capsys):
    code, found = told(runs / "bad", capsys)
    assert (code, found["healthy"]) == (3, False)
    first = found["findings"][0]
    assert first["code"] == "diverged"
    assert set(first) == {"code", "severity", "update", "evidence", "why", "fix", "confidence"}
    assert "--learning-rate 2e-4" in first["fix"]
    info = RunDirectory.open(runs / "bad").info
    assert "Train again with --learning-rate 2e-4" in info.message  # of the error that ended it
    assert "--on-divergence" not in info.message  # half of 2 diverges as well
    (warning,) = [text for text in info.plan["warnings"] if "likely to diverge" in text]
    assert "Train with --learning-rate 2e-4, " in warning  # of the plan
    assert main(["diagnose", str(runs / "bad")]) == 3
    streams = capsys.readouterr()
    assert streams.out.startswith("error diverged, update ")
    assert "has 1 problem, listed above" in streams.err


def test_the_records_alone_are_enough(runs, capsys):
    assert main(["diagnose", str(runs / "bad" / "metrics.jsonl")]) == 3


def test_the_verdict_comes_by_itself(tmp_path, capsys):
    assert main(["train", "--run-dir", str(tmp_path / "run"), *SHORT, "--learning-rate", "5e-4"]) == 0
    assert "Verdict: healthy." in capsys.readouterr().out


def test_a_run_that_made_nothing_better_is_no_success(tmp_path, capsys):
    flags = ["--iters", "3", "--learning-rate", "1e-15", "--warmup", "0"]
    assert main(["train", "--run-dir", str(tmp_path / "run"), *SHORT, *flags]) == 0
    said = "training did not improve the model: the adapter is that of update 0."
    assert f"Verdict: {said}" in capsys.readouterr().out
    # The report, the commands and a notebook say the same.
    assert main(["diagnose", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().err == f"{tmp_path / 'run'}: {said}\n"
    code, found = told(tmp_path / "run", capsys)
    assert (code, found["healthy"], found["verdict"]) == (0, False, [f"Verdict: {said}"])
    assert main(["watch", str(tmp_path / "run")]) == 0
    assert f"Verdict: {said}" in capsys.readouterr().out
    assert main(["watch", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["healthy"] is False
    assert f"Verdict: {said}" in report_html([ReportedRun.read(tmp_path / "run")])


WORSE = {"before": {"loss": 1.0}, "after": {"loss": 1.5}}


@pytest.mark.parametrize(
    "status, evaluated, results, said",
    [
        ("stopped", [0], {}, ""),  # nothing was evaluated after update 0
        ("stopped", [0, 20], {}, "did not improve"),
        ("finished", [0], {}, "did not improve"),
        ("running", [0, 20], {}, ""),
        ("finished", [], WORSE, "made the model worse"),
        ("running", [], WORSE, ""),  # it is being extended, and was measured at its previous end
        ("stopped", [], WORSE, ""),
    ],
)
def test_a_run_is_judged_by_what_was_measured_after_its_training(
    tmp_path, capsys, status, evaluated, results, said
):
    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={"updates": 40}, versions={})
    with run.lock():
        for update in range(40):
            run.metrics.record(UpdateMade(update, 2.0 / (1 + update), 1e-4))
        for update in evaluated:
            run.metrics.record(Evaluated(update, 2.0))
        best = {"update": 0, "loss": 2.0} if evaluated else None
        run.update_info(status=status, update=40, best=best, results=results)
        code, found = told(run.path, capsys)
    assert code == 0 and found["healthy"] is not bool(said)
    assert said in found["verdict"][0] and ("healthy" in found["verdict"][0]) is not bool(said)


def test_the_error_for_a_path_without_a_run_lists_a_similar_run(tmp_path, capsys):
    RunDirectory.create(tmp_path / "none-1", config={}, origins={}, plan={}, versions={})
    assert main(["diagnose", str(tmp_path / "none")]) == 2
    told = capsys.readouterr().err
    assert "There is no run and no log in" in told and f"Similar runs: {tmp_path / 'none-1'}." in told
