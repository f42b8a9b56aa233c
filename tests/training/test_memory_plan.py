"""Runs that fit: what is chosen, what is refused, and that the prediction is what MLX measures."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from mlxsched.bench import ours
from mlxsched.bench.compare import shortened
from mlxsched.bench.synthetic import LogNormal, lognormal_rows, picked_rows
from mlxsched.config import load_config
from mlxsched.data import Dataset
from mlxsched.data.batching.sharing import Sharing
from mlxsched.data.rows import rows_in_memory
from mlxsched.errors import UsageError
from mlxsched.training import gpu_timeout
from mlxsched.training.memory_estimate import ClosedForm, PlannedRun
from mlxsched.training.memory_plan import plan_memory
from mlxsched.training.recorded import config_of
from mlxsched.training.run import _sizes, create_run
from mlxsched.training.session import prepare


def test_a_run_with_room_is_left_alone(session):
    made = session()
    assert made.micro_batch_tokens == 1024
    assert not made.memory.checkpoint
    assert made.memory.fits
    assert not [text for text in made.plan.notes if "memory" in text]


def test_less_memory_means_smaller_micro_batches_then_checkpointing_and_the_same_updates(session):
    plain = session(batch_size=32)
    seen = []
    for share in (0.9, 0.6, 0.45):
        made = session(batch_size=32, memory=int(plain.memory.peak * share))
        assert made.memory.peak <= made.memory.limit
        assert made.plan.updates == plain.plan.updates
        assert made.plan.batch_size == plain.plan.batch_size
        seen.append((made.micro_batch_tokens, made.config.grad_checkpoint))
    assert seen[0] == (512, False)
    assert seen[-1][1]


def test_what_was_chosen_is_in_the_config_so_that_a_resume_finds_it(session):
    made = session(batch_size=32, memory=int(session(batch_size=32).memory.peak * 0.45))
    assert made.config.micro_batch_tokens == made.micro_batch_tokens
    assert made.origins["grad_checkpoint"] == "memory plan"
    again = session(
        batch_size=32,
        **{key: getattr(made.config, key) for key in ("memory", "micro_batch_tokens", "grad_checkpoint")},
    )
    assert again.memory == made.memory


def test_where_macos_watches_the_gpu_micro_batches_are_short(session, monkeypatch):
    """On a slow GPU, where 1,024 tokens of the bundled model take about six seconds."""
    monkeypatch.setattr("mlxsched.training.memory_plan.watched_rate", lambda: 1e9)
    made = session(batch_size=32)
    assert made.micro_batch_tokens == made.config.micro_batch_tokens == 256
    assert any(
        "at most 256 tokens, a longer row by itself: macOS ends work" in text for text in made.plan.notes
    )
    assert session(batch_size=32, micro_batch_tokens=512).micro_batch_tokens == 512


def test_a_run_from_before_sizes_were_measured_is_resumed_with_the_default(session, tmp_path, monkeypatch):
    run = create_run(session(batch_size=32), tmp_path / "run")
    assert run.info.config["micro_batch_tokens"] is None
    monkeypatch.setattr("mlxsched.training.recorded.is_watched", lambda: True)
    monkeypatch.setattr("mlxsched.training.memory_plan.watched_rate", lambda: 1e9)
    assert prepare(config_of(run)).micro_batch_tokens == 1024


def test_smaller_micro_batches_at_a_resume_change_what_is_recorded_of_memory(session, tmp_path):
    made = session(batch_size=32)
    run = create_run(made, tmp_path / "run")
    small = prepare(config_of(run, micro_batch_tokens=128), {"micro_batch_tokens": "--micro-batch-tokens"})
    assert _sizes(made, run) == {}
    recorded = _sizes(small, run)
    assert recorded["config"] == {**run.info.config, "micro_batch_tokens": 128}
    assert recorded["origins"] == {**run.info.origins, "micro_batch_tokens": "--micro-batch-tokens"}
    plan = recorded["plan"]
    assert plan["peak_memory_gb"] == small.plan.peak_memory_gb < made.plan.peak_memory_gb
    assert {**plan, "peak_memory_gb": made.plan.peak_memory_gb} == run.info.plan


def test_the_speed_of_a_gpu_is_measured_once(monkeypatch):
    """Two measurements differ, and so would the micro-batches of two variants of a grid."""
    monkeypatch.setattr(gpu_timeout, "is_watched", lambda: True)
    gpu_timeout._rate.cache_clear()
    speeds = iter([1.0, 2.0])
    monkeypatch.setattr(gpu_timeout, "matmul_gflops", lambda seconds: next(speeds))
    assert [gpu_timeout.watched_rate() for _ in range(2)] == [1e9, 1e9]
    gpu_timeout._rate.cache_clear()


def test_what_the_user_set_stays(session):
    with pytest.raises(UsageError, match="at least"):
        session(memory=10_000_000, micro_batch_tokens=4096, batch_size=64)


def test_what_cannot_fit_is_refused_with_the_least_it_needs(session):
    with pytest.raises(UsageError) as caught:
        session(memory="5MB")
    assert caught.value.exit_code == 2
    needed, weights = map(float, re.findall(r"([\d.]+) GB", str(caught.value))[:2])
    assert needed > 0.005 > weights
    assert "--max-seq-length" in str(caught.value)


@pytest.mark.parametrize("flags", [{}, {"grad_checkpoint": True}, {"num_layers": 2}, {"fast": False}])
def test_the_prediction_is_what_mlx_measures(session, flags):
    made = session(batch_size=8, **flags)
    made = shortened(made, picked_rows(made.train_rows, 64), later=False)
    planned = plan_memory(made.config, made.loaded, made.train_rows, made.sampler, again=False)
    measured = ours.train(made, 1)
    # In a model of a million parameters, single buffers of a few megabytes are a fifth of the peak.
    assert planned.above_weights == pytest.approx(measured.peak, rel=0.2, abs=6e6)


@pytest.mark.parametrize("flags", [{}, {"grad_checkpoint": True}, {"batch_size": 64}])
def test_the_prediction_counts_lines_of_several_rows(flags):
    """Short rows, and a few that go beside the lines."""
    rows = lognormal_rows(128, LogNormal(median=12, p95=80, shortest=4, longest=600))
    config = load_config(flags={"batch_size": 32, "packing": True, "test": False, **flags}).config
    made = shortened(prepare(config, dataset=Dataset({"train": rows}, "synthetic")), rows, later=False)
    assert made.batching.packing is not None and made.batching.grid.shapes
    notes = []
    measured = ours.train(made, 1, notes.append)
    assert not notes
    assert made.memory.above_weights == pytest.approx(measured.peak, rel=0.15)


def test_the_prediction_leaves_out_whole_rows_where_all_share_a_prompt():
    """Counting shapes of whole rows, which never come, it was 72% too high."""
    draw = np.random.default_rng(0)
    begin, rows = draw.integers(1, 256, 256), []
    for own in (200, 120, 90, 300, 60, 440, 150, 110):
        tokens = np.concatenate([begin, draw.integers(1, 256, own)]).astype(np.int32)
        rows.append((tokens, np.arange(len(tokens)) > 256 + own // 2))
    dataset = Dataset({"train": rows_in_memory(rows)}, "synthetic")
    made = prepare(load_config(flags={"batch_size": 8, "iters": 2, "test": False}).config, dataset=dataset)
    assert made.batching.sharing is not None and made.batching.used_shapes == ()
    measured = ours.train(shortened(made, made.train_rows, later=False), 1)
    assert 0.97 * measured.peak < made.memory.above_weights < 1.15 * measured.peak


def test_all_shapes_count_where_stored_activations_may_take_the_place_of_sharing(session):
    made = session(batch_size=8, num_layers=1)
    sharing = Sharing((30,), (made.batching.grid,), 1024, saved=0.2, alone=0)
    estimate = ClosedForm(PlannedRun(made.config, made.loaded, made.train_rows, made.sampler))
    shared = replace(made.batching, sharing=sharing)
    assert estimate._whole_shapes(shared, trained=4) == ()
    assert estimate._whole_shapes(shared, trained=1) == made.batching.shapes


def test_the_outputs_of_frozen_layers_take_what_is_left_and_go_on_disk_beyond(session):
    made = session(num_layers=2)
    rows = made.train_rows
    plan = partial(plan_memory, loaded=made.loaded, rows=rows, order=made.sampler, again=True)
    roomy = plan(made.config)
    assert roomy.cache == 4 * 128 * (int(rows.lengths.sum()) - len(rows))
    tight = made.config.model_copy(update={"memory": roomy.peak + roomy.cache - 1})
    assert plan(tight).cache == 0
    assert plan(tight).micro_batch_tokens == roomy.micro_batch_tokens
    assert 0 < plan(tight).applied_to(tight).prefix_cache < roomy.cache
