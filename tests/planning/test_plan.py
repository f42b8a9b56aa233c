"""The arithmetic of a plan, and what it warns of."""

from __future__ import annotations

import pytest

from mlxsched.errors import UsageError
from mlxsched.planning.plan import length_from_epochs, length_from_iters, schedule_warnings, shorten_warmup
from mlxsched.schedules import warmup_cosine, warmup_linear


def test_the_tail_of_an_epoch_is_an_update_too():
    length = length_from_epochs(rows=10, epochs=2, batch_size=4)
    assert (length.updates_per_epoch, length.updates) == (3, 6)


def test_iterations_are_portions_and_the_rest_is_an_update():
    length = length_from_iters(rows=1000, iters=20, batch_size=4, accumulation=8)
    assert (length.updates, length.rows_per_update, length.last_rows) == (3, 32, 16)
    assert any("last update has 16 rows" in text for text in length.warnings)


def test_no_updates_are_refused():
    with pytest.raises(UsageError, match="--iters"):
        length_from_iters(rows=10, iters=0, batch_size=4)


def test_a_ratio_and_a_warmup_that_fits_are_left_alone():
    assert shorten_warmup(0.3, 100) == (0.3, None)
    assert shorten_warmup(10, 100) == (10, None)


def test_a_schedule_that_cannot_finish_is_warned_of():
    (text,) = schedule_warnings(warmup_cosine(1e-3, 1000), 1000, 80)
    assert "1,000 updates and the run has 80" in text and "98%" in text


def test_a_schedule_that_ends_long_before_the_run_is_warned_of():
    (text,) = schedule_warnings(warmup_linear(1e-3, 5), 5, 40)
    assert "after 5 of 40 updates" in text


def test_a_schedule_made_for_the_run_is_not():
    assert schedule_warnings(warmup_linear(1e-3, 40), 40, 40) == []
