"""The estimated time of a run, and that it leaves the run as it would have been."""

from __future__ import annotations

import math
import time

import mlx.core as mx
import pytest

from mlxsched.model.generate import answer_all
from mlxsched.runs.events import RunStarted
from mlxsched.training import answer_times, results
from mlxsched.training import estimate as module
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_engine
from mlxsched.training.estimate import estimate, estimate_plan
from mlxsched.training.run import create_run, execute

TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")


def trained(made, path):
    """Train; what is left of it, and the seconds that it was expected to take."""
    events = []
    run = create_run(made, path)
    execute(made, run, events.append)
    records = [{key: value for key, value in one.items() if key not in TIMES} for one in run.read_metrics()]
    files = [path / "adapters" / "adapters.safetensors", *sorted(path.glob("checkpoints/*/*.safetensors"))]
    started = next(event for event in events if isinstance(event, RunStarted))
    return records, [file.read_bytes() for file in files], started.seconds


@pytest.mark.parametrize("more", [{"lora_parameters.dropout": 0.2}, {"num_layers": 2}])
def test_timing_changes_nothing(session, tmp_path, monkeypatch, more):
    flags = {"iters": 6, "steps_per_eval": 3, **more}
    monkeypatch.setattr(module, "SHORT", math.inf)
    without = trained(session(**flags), tmp_path / "without")
    monkeypatch.setattr(module, "SHORT", 0.0)
    monkeypatch.setattr(module, "SHARE", 1e9)  # so that every part is timed
    timed = trained(session(**flags), tmp_path / "with")
    assert timed[:2] == without[:2]
    assert without[2] is None and timed[2] > 0


def test_the_parts_add_up_to_the_whole(session, monkeypatch):
    monkeypatch.setattr(module, "SHORT", 0.0)
    made = session(iters=20, steps_per_eval=5, save_every=10)
    acceleration = accelerate(made, None, lambda note: None)
    engine = make_engine(made, acceleration.training)
    found = estimate(made, engine, acceleration)
    once = found.once + found.evaluation + found.measuring  # before the first update
    during = 20 * found.update + 4 * found.evaluation + 3 * found.saving + found.measuring
    assert found.seconds == pytest.approx(once + during)
    rest = estimate(made, engine, acceleration, 15, 20)
    assert rest.seconds < 0.7 * found.seconds


@pytest.mark.parametrize("late", [0.0, 60.0])
def test_answers_to_few_test_rows_stand_for_all(session, monkeypatch, late):
    """Also if time is left for the first answers only: what comes before them is not part of the time per token."""
    monkeypatch.setattr(module, "SHORT", 0.0)
    monkeypatch.setattr(answer_times, "LATE", late)
    made = session(iters=2000, test=True)
    acceleration = accelerate(made, None, lambda note: None)
    engine = make_engine(made, acceleration.training)
    timing = module._Timing(made, engine, acceleration, time.process_time)
    found = timing.estimate(0, 2000).measuring
    engine.load_into_model()
    started = time.process_time()
    answer_all(
        made.loaded.model,
        made.loaded.tokenizer,
        results.test_examples(made)[:25],
        memory=made.answering_memory,
    )
    spent = 8 * (time.process_time() - started)
    assert spent / 4 < found < 4 * spent


def test_a_given_time_is_not_estimated(session, monkeypatch):
    monkeypatch.setattr(module, "SHORT", 0.0)
    assert estimate_plan(session(iters=20, max_time=60)) is None
    assert estimate_plan(session(iters=20), wanted=False) is None
    assert estimate_plan(session(iters=20)).seconds > 0


def test_a_model_that_cannot_be_timed_is_trained_without_an_estimate(session, monkeypatch):
    monkeypatch.setattr(module, "SHORT", 0.0)
    made = session(iters=20)
    acceleration = accelerate(made, None, lambda note: None)
    engine = make_engine(made, acceleration.training)
    monkeypatch.setattr(module, "random_batch", lambda *arguments, **more: mx.zeros(3) + mx.zeros(2))
    assert estimate(made, engine, acceleration) is None
    monkeypatch.setattr(module, "random_batch", lambda *arguments, **more: 1 / 0)  # a mistake of ours
    with pytest.raises(ZeroDivisionError):
        estimate(made, engine, acceleration)


def test_timed_batches_stay_within_a_small_vocabulary():
    batch = module.random_batch((4, 32), 0.5, vocabulary=7)
    assert max(batch.inputs.max(), batch.labels.max()) < 7 and batch.n_targets == 64
