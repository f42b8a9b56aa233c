"""The comparison is fair: same rows in the same order, same loss, each from the same weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlxsched.bench import ours, theirs
from mlxsched.bench.compare import compare, shortened
from mlxsched.bench.synthetic import LogNormal, lognormal_rows, picked_rows, synthetic_dataset
from mlxsched.errors import UsageError
from mlxsched.model.trees import flatten


@pytest.fixture
def small(session):
    """A session over 48 rows of the bundled data: twelve updates of four."""
    made = session(batch_size=4, num_layers=2, learning_rate=1e-3)
    return shortened(made, picked_rows(made.train_rows, 48))


def test_both_sides_have_the_same_losses_after_updates_of_their_own(small):
    result = compare(small, rounds=1, evaluation=False)
    theirs_first, ours_first = result.rounds[0].theirs.losses, result.rounds[0].ours.losses
    assert len(theirs_first) == len(ours_first) == 1  # the mean over ten updates
    assert ours_first == pytest.approx(theirs_first, rel=1e-5)
    assert 0 <= result.loss_difference < 1e-4


def test_the_losses_are_of_a_training_and_not_of_one_set_of_weights(small):
    initial = small.loaded.model.trainable_parameters()
    moving = ours.train(small, 1).losses
    small.loaded.model.update(initial)
    still = ours.train(replace(small, schedule=lambda step: 0.0), 1).losses
    assert moving[0] == still[0]
    assert abs(moving[-1] - still[-1]) > 0.01


def test_the_model_is_as_before_when_all_is_done(small):
    model = small.loaded.model
    before = {path: np.array(value) for path, value in flatten(model.trainable_parameters()).items()}
    compare(small, rounds=1, later=False, evaluation=False)
    after = flatten(model.trainable_parameters())
    assert all(np.array_equal(before[path], np.array(after[path])) for path in before)


def test_mlx_lm_gets_the_rows_of_our_updates(small):
    order = ours.order_of_epoch(small)
    assert sorted(order) == list(range(48))
    arranged = theirs._arranged(order, 4)
    np.random.seed(theirs._SEED)
    shuffled = arranged.reshape(-1, 4)[np.random.permutation(12)]
    assert np.array_equal(shuffled.reshape(-1), order)


def test_both_sides_take_the_order_of_a_length_window(session):
    made = session(batch_size=4, num_layers=2, length_window=4)
    made = shortened(made, picked_rows(made.train_rows, 48), later=False)
    lengths = made.train_rows.lengths[ours.order_of_epoch(made)].reshape(12, 4)
    plain = made.train_rows.lengths[
        ours.order_of_epoch(replace(made, config=made.config.model_copy(update={"length_window": 1})))
    ]
    assert np.ptp(lengths, axis=1).mean() < np.ptp(plain.reshape(12, 4), axis=1).mean() / 2
    assert 0 <= compare(made, rounds=1, evaluation=False).loss_difference < 1e-4


def test_accumulated_iterations_are_rows_of_the_same_update(session):
    made = session(batch_size=2, grad_accumulation_steps=3, num_layers=2)
    made = shortened(made, picked_rows(made.train_rows, 24), later=False)
    result = compare(made, rounds=1, evaluation=False)
    assert result.later_epochs_speedup is None
    assert len(result.rounds[0].ours.losses) == 1


def test_evaluations_agree(small):
    _, expected = theirs.evaluate(small)
    seconds, loss = ours.evaluate(small)
    assert len(seconds) == 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_lengths_are_log_normal():
    rows = lognormal_rows(5000, LogNormal(longest=100_000))
    assert np.median(rows.lengths) == pytest.approx(112, rel=0.05)
    assert np.percentile(rows.lengths, 95) == pytest.approx(524, rel=0.08)
    assert rows.target_counts.sum() / rows.lengths.sum() == pytest.approx(0.4, rel=0.01)
    assert lognormal_rows(50).digest() == lognormal_rows(50).digest() != lognormal_rows(50, seed=1).digest()


def test_an_unknown_mix_is_refused():
    with pytest.raises(UsageError, match="synthetic:lognormal"):
        synthetic_dataset("synthetic:bimodal", 10)


def test_too_few_rows_for_an_update_are_refused(session):
    made = session(batch_size=8)
    with pytest.raises(UsageError, match="--batch-size"):
        shortened(made, picked_rows(made.train_rows, 4))


def test_another_loop_takes_the_place_of_mlx_lms(small):
    def loop(model, optimizer, dataset, *, args, iterate_batches, training_callback, **rest):
        batches = iterate_batches(
            dataset=dataset, batch_size=4, max_seq_length=args.max_seq_length, loop=True
        )
        assert [next(batches)[0].shape[0] for _ in range(args.iters)] == [4] * 12
        training_callback.on_train_loss_report({"train_loss": 7.0})

    cost = theirs.train(small, ours.order_of_epoch(small), 1, loop)
    assert cost.losses == [7.0]
    assert cost.padded > small.train_rows.lengths.sum() - 48
