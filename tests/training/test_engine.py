"""The engine: updates without a directory, snapshots, and results that wait for the device only when they are read."""

from __future__ import annotations

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten, tree_map

from mlxsched.model.load import load_model
from mlxsched.training.assembly import make_engine, make_evaluator
from mlxsched.training.session import prepare
from mlxsched.training.workers.engine import SharedEngine
from mlxsched.training.workers.world import World


@pytest.fixture
def parts(session, parts_of):
    """Engine, loader and evaluator of a short session."""

    def make(**flags):
        made = session(**flags)
        paths, _, loader = parts_of(made)
        return make_engine(made, paths.training), loader, make_evaluator(made, paths.validation)

    return make


def flat(engine):
    return dict(tree_flatten(engine.snapshot()._asdict()))


def same(a, b):
    return a.keys() == b.keys() and all(mx.array_equal(a[k], b[k]).item() for k in a)


def test_an_update_moves_the_parameters_and_its_loss_is_that_before_it(parts):
    engine, loader, _ = parts()
    before = engine.snapshot()
    first = engine.update(loader(0), 1e-2)
    assert first.applied and first.grad_norm > 0
    again = engine.update(loader(0), 1e-2)
    assert again.loss < first.loss
    engine.restore(before)
    assert engine.update(loader(0), 1e-2).loss == first.loss


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_snapshot_is_not_changed_by_later_updates_and_restores_exactly(parts, dropout):
    engine, loader, _ = parts(**{"lora_parameters.dropout": dropout})
    engine.update(loader(0), 1e-3)
    snapshot, kept = engine.snapshot(), flat(engine)
    losses = [engine.update(loader(u), 1e-3).loss for u in (1, 2)]
    end = flat(engine)
    assert not same(kept, end)
    engine.restore(snapshot)
    assert same(kept, flat(engine))
    assert [engine.update(loader(u), 1e-3).loss for u in (1, 2)] == losses
    assert same(end, flat(engine))


def test_a_rate_that_ruins_the_weights_leaves_them_unchanged(parts):
    engine, loader, _ = parts()
    kept = flat(engine)
    outcome = engine.update(loader(0), float("inf"))
    assert not outcome.applied
    assert same(kept, flat(engine))


def test_evaluating_changes_nothing(parts):
    engine, loader, evaluator = parts()
    engine.update(loader(0), 1e-3)
    kept = flat(engine)
    first, second = engine.evaluate(evaluator), engine.evaluate(evaluator)
    assert first == second and same(kept, flat(engine))


def test_batches_prepared_ahead_are_those_of_the_update(parts):
    _, loader, _ = parts()
    plain = loader(3)
    loader.prepare(3)
    ahead = loader(3)
    assert ahead.update == 3 and (ahead.rows == plain.rows).all()
    loader.prepare(4)
    assert loader(2).update == 2  # another update than the prepared one is loaded as usual


@pytest.mark.slow
def test_full_fine_tuning_of_a_bf16_model_learns_as_much_as_in_float32(session, parts_of):
    """At 3e-5 most updates are smaller than what bf16 weights can hold: float32 master weights keep them."""
    losses = []
    for dtype in (mx.float32, mx.bfloat16):
        loaded = load_model("tiny")
        loaded.model.update(tree_map(lambda p, dtype=dtype: p.astype(dtype), loaded.model.parameters()))
        config = session(fine_tune_type="full", num_layers=-1, iters=8, fast=False).config
        made = prepare(config, {}, loaded=loaded)
        paths, _, loader = parts_of(made)
        engine = make_engine(made, paths.training)
        for update in range(8):
            engine.update(loader(update), 1e-4).wait()
        losses.append(engine.evaluate(make_evaluator(made, paths.validation)).loss)
    assert losses[0] < 2.0  # 2.2 at the start
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_full_fine_tuning_in_portions_gives_the_same(parts, optimizer):
    engine, loader, _ = parts(fine_tune_type="full", optimizer=optimizer)
    assert engine.optimizer.in_place
    before, ends = engine.snapshot(), []
    for in_portions in (False, True):
        engine.restore(before)
        engine._in_portions = in_portions
        for update in range(2):
            engine.update(loader(update), 1e-3)
        ends.append(flat(engine))
    assert same(*ends)


@pytest.mark.parametrize("shared", [False, True])
def test_an_update_is_taken_back_where_macos_may_end_it(session, parts_of, monkeypatch, shared):
    monkeypatch.setattr("mlxsched.training.engine.is_watched", lambda: True)
    made = session(fast=False)
    paths, _, loader = parts_of(made)
    engine = make_engine(made, paths.training)
    if shared:
        engine = SharedEngine(World(), made.loaded.model, engine.optimizer, paths.training)
    engine.update(loader(0), 1e-3).wait()
    kept = flat(engine)
    engine.update(loader(1), 1e-3).wait()
    assert not same(kept, flat(engine))
    assert engine.undo(1)
    assert same(kept, flat(engine))


def test_other_devices_keep_no_copy_and_say_that_the_update_stays(parts):
    engine, loader, _ = parts(fast=False)
    engine.update(loader(0), 1e-3).wait()
    after = flat(engine)
    assert engine._before[1] is None
    assert not engine.undo(0)
    assert same(after, flat(engine))
    assert engine.undo(1)  # not begun
