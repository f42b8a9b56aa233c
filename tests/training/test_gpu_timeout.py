"""What happens when macOS ends an update: the error of the real step is injected, everything around it is real."""

from __future__ import annotations

import shlex

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.cli.main import main
from mlxsched.errors import RunError
from mlxsched.model.adapters import read_tensors
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.engine import Outcome
from mlxsched.training.gpu_timeout import gpu_timeout, is_gpu_timeout, risk
from mlxsched.training.run import create_run, execute
from mlxsched.training.step import UpdateStep

TIMEOUT = (
    "[METAL] Command buffer execution failed: Caused GPU Timeout Error "
    "(00000002:kIOGPUCommandBufferCallbackErrorTimeout)."
)
SHORT = {"iters": 5, "save_every": 100, "val_batches": 0}


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    """As on a Mac's GPU: engines remember what they had before an update."""
    monkeypatch.setattr("mlxsched.training.engine.is_watched", lambda: True)


def break_once(monkeypatch, owner, method, call):
    """Raise the error in place of what the ``call``-th call of a method would return."""
    original, calls = getattr(owner, method), []

    def fails(self, *args):
        calls.append(method)
        result = original(self, *args)
        if len(calls) == call:
            raise RuntimeError(TIMEOUT)
        return result

    monkeypatch.setattr(owner, method, fails)


def broken(made, path, monkeypatch, owner, method):
    """The run in ``path`` after its fourth update failed, and what the user is told."""
    run = create_run(made, path)
    with monkeypatch.context() as patched, pytest.raises(RunError) as raised:
        break_once(patched, owner, method, call=4)
        execute(made, run)
    assert run.info.status == "failed"
    return run, str(raised.value)


def test_an_update_that_is_never_computed_is_taken_back(session, tmp_path, monkeypatch):
    run, text = broken(session(**SHORT), tmp_path / "run", monkeypatch, UpdateStep, "apply")
    assert "The state after 3 updates is saved" in text
    assert run.checkpoints.latest_good().update == 3


def test_the_printed_command_goes_on_with_the_same_schedule(train, session, tmp_path, monkeypatch, capsys):
    run, text = broken(session(**SHORT), tmp_path / "broken run", monkeypatch, Outcome, "wait")
    assert "macOS ended" in text and run.checkpoints.latest_good().update == 3
    command = next(line.strip() for line in text.splitlines() if line.strip().startswith("mlxsched resume"))
    assert command.endswith("--micro-batch-tokens 512")

    assert main([*shlex.split(command)[1:], "--plain"]) == 0
    capsys.readouterr()
    whole, _, _ = train("whole", **SHORT)
    resumed = RunDirectory.open(run.path)
    assert resumed.info.config["micro_batch_tokens"] == 512
    assert resumed.info.origins["micro_batch_tokens"] == "--micro-batch-tokens"
    expected, got = read_tensors(whole.adapters), read_tensors(resumed.adapters)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, atol=2e-6)
    rates = [[r["lr"] for r in each.read_metrics() if r["kind"] == "train"] for each in (whole, resumed)]
    assert rates[0] == rates[1] and len(rates[0]) == 5


@pytest.mark.parametrize(
    "text",
    [
        TIMEOUT,
        "[METAL] Command buffer execution failed: Impacting Interactivity "
        "(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)",
        "[METAL] Command buffer execution failed: Ignored (for causing prior/excessive GPU errors) "
        "(00000004:kIOGPUCommandBufferCallbackErrorSubmissionsIgnored)",
    ],
)
def test_the_texts_of_reports_are_recognized(text):
    assert is_gpu_timeout(RuntimeError(text))
    assert not is_gpu_timeout(ValueError(text))


def test_other_errors_are_not():
    assert not is_gpu_timeout(RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory"))
    with pytest.raises((RuntimeError, ValueError)) as raised:
        mx.eval(mx.zeros((2, 3)) @ mx.zeros((2, 3)))
    assert not is_gpu_timeout(raised.value)


def test_only_long_micro_batches_are_at_risk():
    assert risk(1.9, 2048, 900) is None
    assert "expected to take 3.4 s" in risk(3.41, 2048, 900)
    assert "--micro-batch-tokens 1024" in risk(3.41, 2048, 900)


@pytest.mark.parametrize(("tokens", "longest"), [(1024, 2047), (64, 40)])
def test_smaller_micro_batches_are_not_advised_where_they_change_nothing(tokens, longest):
    for text in (
        risk(3.4, tokens, longest),
        str(gpu_timeout(RuntimeError(TIMEOUT), 3, tokens, longest, "mlxsched resume run")),
    ):
        assert f"the longest row has {longest:,} tokens" in text and "--max-seq-length" in text
        assert "--micro-batch-tokens" not in text
