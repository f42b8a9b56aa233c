"""Models that the closed form was not fitted to are measured, and runs stay within a limit."""

from __future__ import annotations

import gc
import json
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.training.memory_plan import MemoryPlan
from mlxsched.training.optimizers import group_tensors
from mlxsched.training.peak_probe import PeakProbe
from mlxsched.training.run import create_run, execute


@pytest.fixture
def even_rows(tmp_path):
    """Rows of one length, so that every micro-batch has the largest shape."""
    folder = tmp_path / "rows"
    folder.mkdir()
    lines = ["".join(row) for row in np.random.default_rng(0).choice(list("0123456789"), (32, 62))]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return str(folder)


def peak_of_run(made, path, held):
    """MLX's peak in bytes above the ``held`` ones of models that other tests keep loaded."""
    execute(made, create_run(made, path), lambda event: None)
    return mx.get_peak_memory() - held


def test_a_measured_plan_is_what_the_run_takes_and_keeps_a_limit(session, architecture, even_rows, tmp_path):
    flags = {"model": str(architecture("gemma3_text")), "data": even_rows, "iters": 2, "batch_size": 16}
    flags |= {"val_batches": 0, "prefix_cache": 0}
    gc.collect()
    held = mx.get_active_memory()
    free = session(**flags)
    assert free.memory.measured
    real = peak_of_run(free, tmp_path / "free", held)
    assert free.memory.peak == pytest.approx(real, rel=0.15)
    limit = int(0.7 * real)
    tight = session(memory=limit, **flags)
    assert tight.memory.fits and tight.memory != free.memory
    del free
    gc.collect()
    assert peak_of_run(tight, tmp_path / "tight", held) < 1.1 * limit


def test_a_model_that_was_fitted_is_not_measured(session):
    assert not session().memory.measured


def test_dora_is_measured(session):
    assert session(fine_tune_type="dora").memory.measured


class Counted(PeakProbe):
    """Measures nothing: a peak of 10 for each token, and of one for each score."""

    def _measured(self, shape):
        self.asked.append(shape)
        return 10 * shape[0] * shape[1] + shape[0] * shape[1] ** 2


def counted(limit):
    make = partial(group_tensors, {}, "adamw", {})
    probe = Counted(None, make, None, 0.5, limit)
    probe.asked = []
    return probe


def test_sizes_are_doubled_up_to_the_one_that_is_asked_for():
    probe = counted(10**9)
    assert probe.peak((4, 128)) == 4 * (10 * 128 + 128**2)
    assert probe.asked == [(1, 32), (1, 64), (1, 128), (2, 128), (4, 128)]
    assert probe.peak((8, 128)) == 8 * (10 * 128 + 128**2)
    assert probe.asked[5:] == [(8, 128)]  # the others are known


@pytest.mark.parametrize("shape", [(1, 1024), (16, 128)])
def test_what_would_exceed_the_limit_is_extrapolated(shape):
    limit = 40_000
    probe = counted(limit)
    exact = 10 * shape[0] * shape[1] + shape[0] * shape[1] ** 2
    assert probe.peak(shape) == pytest.approx(exact, rel=0.15)
    assert all(10 * rows * length + rows * length**2 <= limit for rows, length in probe.asked)


def test_a_plan_with_stochastic_rounding_says_so(session):
    config = session().config
    plan = MemoryPlan(10, 20, 0, 100, 1024, 0, stochastic_rounding=True)
    assert plan.applied_to(config).stochastic_rounding
    assert "stochastic rounding in place of float32 copies" in plan.notes(config)[0]


def test_a_plan_that_changes_dropout_masks_says_so(session):
    config = session(**{"lora_parameters.dropout": 0.1}).config
    smaller = MemoryPlan(10, 20, 0, 100, 256, 0)
    assert any("dropout masks depend" in note for note in smaller.notes(config))
