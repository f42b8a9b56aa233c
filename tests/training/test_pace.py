"""The horizon of a run: its rates, revisions, and what a checkpoint must know of them."""

from __future__ import annotations

import pytest

import mlxsched as ms
from mlxsched.errors import RunError
from mlxsched.training.pace import Horizon, Pace, Revision

LINEAR = ms.warmup_linear(1e-3, 100, 10)


def test_rates_before_a_revision_stay_what_they_were():
    tail = ms.warmup_linear(5e-4, 60)
    revised = Horizon(100, LINEAR).revise(Revision(at=40, updates=60, schedule=tail.to_dict()))
    assert [revised.rate(u) for u in range(40)] == [LINEAR(u) for u in range(40)]
    assert [revised.rate(u) for u in range(40, 61)] == [tail(u) for u in range(40, 61)]
    assert revised.updates == 60


def test_revisions_stack_and_replay():
    horizon = Horizon(100, LINEAR)
    revised = horizon
    for at, value in ((20, 1e-4), (50, 2e-4)):
        schedule = ms.constant(value).to_dict()
        revised = revised.revise(Revision(at, 200, schedule, f"update {at}"))
    again = horizon.replay(revised.to_list())
    rates = [revised.rate(u) for u in (19, 20, 49, 50, 199)]
    assert rates == [LINEAR(19), 1e-4, 1e-4, 2e-4, 2e-4]
    assert [again.rate(u) for u in (19, 20, 49, 50, 199)] == rates
    assert again.updates == 200 and again.to_list() == revised.to_list()


def test_a_revision_without_a_schedule_only_moves_the_end():
    revised = Horizon(100, LINEAR).revise(Revision(at=30, updates=70))
    assert revised.updates == 70 and revised.rate(50) == LINEAR(50)


def test_only_the_planned_end_has_fewer_rows():
    horizon = Horizon(10, LINEAR, last_rows=3)
    assert [horizon.rows_of(u) for u in (8, 9)] == [None, 3]
    assert horizon.revise(Revision(at=5, updates=20)).rows_of(9) is None
    longer = horizon.revise(Revision(at=10, updates=20)).revise(Revision(at=15, updates=30))
    assert [longer.rows_of(u) for u in (9, 19, 29)] == [3, None, None]


@pytest.mark.parametrize(
    ("schedule", "trunk"),
    [
        (ms.wsd(1e-3, 100, warmup=10, decay=0.2), 80),
        (ms.warmup_cosine(1e-3, 100, warmup=10), None),
        (ms.warmup_linear(1e-3, 100), None),
        (ms.constant(1e-3), None),
        (ms.flat_cosine(1e-3, 100), 75),
        (ms.cooldown(ms.inverse_sqrt(1e-3, 10), 60, 40), 60),
    ],
)
def test_the_trunk_is_what_comes_before_the_cooldown(schedule, trunk):
    assert Horizon(100, schedule).trunk == trunk


@pytest.mark.parametrize(("at", "updates"), [(-1, 10), (11, 10)])
def test_a_run_cannot_end_before_it_is_revised(at, updates):
    with pytest.raises(RunError, match="revised"):
        Horizon(100, LINEAR).revise(Revision(at, updates))


def test_a_pace_is_restored_from_a_checkpoint():
    pace = Pace(Horizon(100, LINEAR))
    pace.factor = 0.5
    pace.revise(Revision(at=10, updates=120, schedule=ms.constant(1e-4).to_dict()))
    saved = pace.to_dict()
    resumed = Pace(Horizon(100, LINEAR))
    resumed.load(saved)
    assert resumed.updates == 120 and resumed.rate(5) == LINEAR(5) / 2 and resumed.rate(60) == 5e-5
    resumed.load({})
    assert resumed.updates == 100 and resumed.rate(60) == LINEAR(60)


def test_an_adaptive_schedule_follows_the_validation_loss_and_forgets_it_at_the_beginning():
    pace = Pace(Horizon(100, ms.plateau(ms.constant(1e-3), patience=0)))
    for loss in (2.0, 2.0, 2.0):
        pace.observe(loss)
    lowered, saved = pace.rate(5), pace.to_dict()
    assert lowered < 1e-3
    pace.load({})
    assert pace.rate(5) == 1e-3
    pace.load(saved)
    assert pace.rate(5) == lowered
