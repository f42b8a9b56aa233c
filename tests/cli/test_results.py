"""The end of a run, whatever its files hold."""

from __future__ import annotations

from mlxsched.cli.results import show_results
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import UpdateMade
from mlxsched.training.progress import Progress


def test_a_number_that_no_float_can_hold_is_left_out(tmp_path, capsys):
    run = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    with run.lock():
        run.metrics.record(UpdateMade(0, 2.5, 1e-4, 0.75, 1000, 900, 500.0, 12.34, 2.0, 2.4))
    measured = {"loss": 0.5, "perplexity": 10**400, "exact_match": "all"}
    show_results(run, Progress(results={"before": 3, "after": measured}))
    shown = capsys.readouterr().out
    assert "validation loss" in shown and "0.5000" in shown
    assert "perplexity" not in shown and "exact match" not in shown
