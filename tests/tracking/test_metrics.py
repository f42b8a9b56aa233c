"""Events become the metrics that transformers' callbacks send."""

from __future__ import annotations

import math

import pytest

from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.tracking.metrics import TrainMetrics, evaluation_metrics


def test_names_are_those_of_transformers():
    transformers = pytest.importorskip("transformers.integrations.integration_utils")
    metrics = TrainMetrics(1, 4).add(UpdateMade(0, loss=2.0, lr=1e-3, grad_norm=0.5, tokens=10, seconds=2.0))
    theirs = transformers.rewrite_logs(
        {"loss": 1, "learning_rate": 1, "grad_norm": 1, "epoch": 1, "eval_loss": 1}
    )
    ours = metrics | evaluation_metrics(Evaluated(1, loss=1.0))
    assert set(theirs) <= set(ours)
    assert metrics["train/epoch"] == 0.25 and metrics["train/global_step"] == 1
    assert metrics["train/tokens_per_second"] == 5.0


def test_the_loss_is_the_mean_since_the_last_report_and_the_rest_comes_at_the_end():
    collect = TrainMetrics(2, 10)
    assert collect.add(UpdateMade(0, loss=2.0, lr=0.1)) == {}
    report = collect.add(UpdateMade(1, loss=4.0, lr=0.2))
    assert (report["train/loss"], report["train/learning_rate"]) == (3.0, 0.2)
    assert collect.add(UpdateMade(2, loss=7.0, lr=0.3)) == {}
    assert collect.flush()["train/loss"] == 7.0
    assert collect.flush() == {}


def test_numbers_that_are_not_finite_are_left_out():
    report = TrainMetrics(1, 10).add(UpdateMade(0, loss=math.nan, lr=0.1, grad_norm=math.inf))
    assert not {"train/loss", "train/grad_norm"} & report.keys() and report["train/learning_rate"] == 0.1
