"""From rows, epochs and batch size to updates."""

from __future__ import annotations

import math

import pytest

from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.planning.length import evaluation_interval, length_from_epochs, length_from_iters, plan_length


def codes(length):
    return [finding.code for finding in length.findings]


def test_the_tail_of_an_epoch_is_an_update_too():
    length = length_from_epochs(rows=10, epochs=2, batch_size=4)
    assert (length.updates_per_epoch, length.updates) == (3, 6)


@pytest.mark.parametrize("rows", [1, 7, 30, 31, 1000])
@pytest.mark.parametrize("epochs", [0.1, 0.5, 1, 2.5, 3])
def test_updates_are_those_of_counting_them_one_by_one(rows, epochs):
    per_epoch = len(range(0, rows, 3))
    expected = next(n for n in range(1, 10_000) if n / per_epoch >= epochs - 1e-12)
    assert length_from_epochs(rows, epochs, batch_size=3).updates == expected


def test_left_over_iterations_make_a_shorter_update():
    length = length_from_iters(rows=1000, iters=20, batch_size=4, accumulation=8)
    assert (length.updates, length.rows_per_update, length.last_rows) == (3, 32, 16)
    assert codes(length) == ["short_last_update"]
    assert "the last update has 16 rows instead of 32" in str(length.findings[0])


def test_an_update_larger_than_the_data_is_warned_of():
    assert codes(length_from_epochs(rows=10, epochs=1, batch_size=16)) == ["few_rows"]
    assert codes(length_from_epochs(rows=16, epochs=1, batch_size=16)) == []


def test_a_run_without_an_update_is_refused():
    with pytest.raises(UsageError, match="--iters"):
        length_from_iters(rows=10, iters=0, batch_size=4)


@pytest.mark.parametrize("accumulation", [1, 4])
def test_steps_are_updates_whatever_the_accumulation(accumulation):
    given = {"steps": 40, "batch_size": 2, "grad_accumulation_steps": accumulation}
    length = plan_length(load_config(flags=given).config, 100)
    assert (length.updates, length.last_rows, length.findings) == (40, None, ())


@pytest.mark.parametrize("preset", ["debug", "laptop"])
def test_steps_replace_the_length_of_a_preset(preset):
    loaded = load_config(preset=preset, flags={"steps": 7})
    assert plan_length(loaded.config, 1000, loaded.origins).updates == 7


@pytest.mark.parametrize("key", ["epochs", "iters", "steps"])
def test_a_time_limit_decides_unless_a_length_is_given_beside_it(key):
    loaded = load_config(flags={"max_time": "5m"})
    assert plan_length(loaded.config, 1000, loaded.origins).assumed
    loaded = load_config(flags={"max_time": "5m", key: 7})
    assert not plan_length(loaded.config, 1000, loaded.origins).assumed


def test_iterations_take_precedence_over_epochs():
    assert plan_length(load_config(flags={"iters": 40, "batch_size": 2}).config, 100).updates == 40
    assert plan_length(load_config(flags={"epochs": 2, "batch_size": 50}).config, 100).updates == 4


def test_evaluations_take_at_most_a_tenth_of_the_time_of_training():
    assert evaluation_interval(1000, 8, 100) == 100
    rows = 100_000
    interval = evaluation_interval(100_000, 8, rows)
    assert rows / 3 <= 0.1 * interval * 8 < rows / 3 + 8
    assert evaluation_interval(5, 8, 100) <= 5
    assert evaluation_interval(7, 8, 0) == math.ceil(7 / 10)


def test_a_length_that_replaces_a_preset_s_time_limit_is_noted():
    loaded = load_config(preset="debug", flags={"iters": "200"})
    found = plan_length(loaded.config, 1000, loaded.origins)
    assert found.updates == 200
    (note,) = [one for one in found.findings if one.code == "time_limit_lifted"]
    assert str(note) == (
        "--iters replaces the time limit (max_time) of preset debug. To limit the time as well, add --max-time"
    )
    loaded = load_config(preset="debug")
    assert plan_length(loaded.config, 1000, loaded.origins).findings == ()
