"""A horizon that gets longer or shorter keeps the shape of its schedule, and its rate does not jump."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import OURS

import mlxsched as ms
from mlxsched.schedules import from_dict
from mlxsched.training.pace import Horizon
from mlxsched.training.revisions import STEEPEST, cooldown_of, cuts_warmup, reshaped, warmup_of

WHOLE = [
    ms.warmup_linear(1e-3, 400, 20),
    ms.warmup_cosine(1e-3, 400, 20, end=1e-4),
    ms.one_cycle(1e-3, 400),
    ms.wsd(1e-3, 400, 20),
    ms.wsd(1e-3, 400, 20, decay=60, end=1e-5),
    ms.trapezoid(1e-3, 400),
    ms.cooldown(ms.inverse_sqrt(1e-3, 20), 300, 100),
    ms.with_warmup(ms.rex(1e-3, 380), 20),
    ms.cosine_restarts(1e-3, 400, cycles=3, warmup=20),
]
lengths = st.lists(st.tuples(st.floats(0, 1), st.integers(8, 600)), min_size=1, max_size=4)


def revise_at_random(horizon, changes):
    """Revise several times, each at a share of what is left; yields the horizon before and after, and the update."""
    at = 0
    for share, left in changes:
        at += int(share * (horizon.updates - 1 - at))
        after = horizon.revise(reshaped(horizon, at, at + left, back=at % 2 == 1))
        yield horizon, after, at
        horizon = after


@pytest.mark.parametrize("schedule", WHOLE, ids=repr)
@settings(max_examples=8, deadline=None)
@given(changes=lengths)
def test_the_rate_goes_on_where_it_was_and_ends_where_the_shape_does(schedule, changes):
    horizon = Horizon(schedule.steps, schedule)
    for before, after, at in revise_at_random(horizon, changes):
        # A position is kept to 1/65536 of a step, and no step of these shapes changes the rate by more than the peak.
        assert after.rate(at) == pytest.approx(before.rate(at), abs=1e-3 / 65536)
        earlier = range(0, at, 17)
        assert [after.rate(u) for u in earlier] == [before.rate(u) for u in earlier]
        assert after.rate(after.updates) == schedule(schedule.steps)
    assert max(after.rate(u) for u in range(0, after.updates, 5)) <= 1e-3


@pytest.mark.parametrize("schedule", WHOLE, ids=repr)
@settings(max_examples=8, deadline=None)
@given(changes=lengths)
def test_the_peak_is_reached_whenever_the_warmup_is_revised(schedule, changes):
    horizon = Horizon(schedule.steps, schedule)
    for _, after, at in revise_at_random(horizon, changes):
        if at < warmup_of(schedule) and after.updates > at + 2 * STEEPEST:
            highest = max(after.rate(u) for u in range(after.updates))
            assert highest == pytest.approx(schedule(warmup_of(schedule)), rel=1e-12)
        else:
            break


@pytest.mark.parametrize("schedule", WHOLE, ids=repr)
@settings(max_examples=8, deadline=None)
@given(changes=lengths)
def test_no_revision_makes_a_rate_rise_faster_than_a_warmup_of_ten_updates(schedule, changes):
    horizon, length = Horizon(schedule.steps, schedule), warmup_of(schedule)
    for _, after, at in revise_at_random(horizon, changes):
        if at >= length:
            break
        rises = [after.rate(u + 1) - after.rate(u) for u in range(at, after.updates - 1)]
        pace = max(length / STEEPEST, 1)
        steepest = max(schedule(min(u + pace, length)) - schedule(u) for u in range(length))
        cut = after.updates > at + 1 and cuts_warmup(after.revisions[-1])
        if cut or not isinstance(schedule, ms.cosine_restarts):  # whose restarts are rises by design
            assert max(rises, default=0) <= steepest * 1.001
        if cut:
            top = max(range(at, after.updates), key=after.rate)
            assert at <= top <= (at + after.updates) // 2 and after.rate(after.updates - 1) <= after.rate(top)


@pytest.mark.parametrize("schedule", WHOLE, ids=repr)
@settings(max_examples=8, deadline=None)
@given(changes=lengths)
def test_revisions_do_not_nest_and_survive_json(schedule, changes):
    horizon = Horizon(schedule.steps, schedule)
    for _, after, _at in revise_at_random(horizon, changes):
        revised = after.schedule
        assert type(getattr(revised, "schedule", None)) in (
            type(None),
            type(schedule),
            ms.inverse_sqrt,
            ms.rex,
        )
    again = horizon.replay(json.loads(json.dumps(after.to_list())))
    assert again == after


@pytest.mark.parametrize(
    ("schedule", "planned"),
    [
        (ms.warmup_linear(1e-3, 400, 20), ms.warmup_linear(1e-3, 600, 20)),
        (ms.wsd(1e-3, 400, 20), ms.wsd(1e-3, 600, 20)),
        (ms.wsd(1e-3, 400, 20, decay=40), ms.wsd(1e-3, 600, 20, decay=40)),
        (ms.warmup_cosine(1e-3, 400, 20), ms.warmup_cosine(1e-3, 600, 20)),
    ],
    ids=repr,
)
def test_a_rate_that_has_decayed_too_early_rises_to_that_of_the_longer_run(schedule, planned):
    horizon = Horizon(400, schedule)
    short = horizon.revise(reshaped(horizon, 50, 100))
    longer = short.revise(reshaped(short, 95, 600, back=True))
    assert short.rate(95) == pytest.approx(longer.rate(95), abs=1e-8) and short.rate(95) < 4e-4
    rises = [longer.rate(u + 1) - longer.rate(u) for u in range(95, 145)]
    assert min(rises) >= 0 and max(rises) <= 1e-4
    # Between two of the 20 steps of the cooldown of the short run, rates lie on a straight line.
    near = 7e-5 if isinstance(schedule, ms.wsd) else 1.5e-6
    rest = range(146, 601)
    assert [longer.rate(u) for u in rest] == pytest.approx([planned(u) for u in rest], abs=near)
    again = longer.revise(reshaped(longer, 120, 300, back=True))  # in the middle of the rise
    assert again.rate(120) == pytest.approx(longer.rate(120), abs=1e-8) and again.rate(300) == 0
    assert type(again.schedule.schedule) is type(schedule)


def test_a_rate_rises_again_only_where_that_is_asked_for_and_worth_it():
    def rises(schedule, at, updates, back=True):
        horizon = Horizon(400, schedule)
        short = horizon.revise(reshaped(horizon, 50, 100))
        longer = short.revise(reshaped(short, at, updates, back=back))
        return any(longer.rate(u + 1) > longer.rate(u) for u in range(at, updates))

    linear = ms.warmup_linear(1e-3, 400, 20)
    assert rises(linear, 95, 600)
    assert not rises(linear, 95, 600, back=False)
    assert not rises(linear, 95, 110)  # too few updates are left
    assert not rises(linear, 60, 110)  # a rate that is hardly too low
    restarts = ms.cosine_restarts(1e-3, 400, cycles=3, warmup=20)
    horizon = Horizon(400, restarts)
    short = horizon.revise(reshaped(horizon, 50, 100))
    assert reshaped(short, 95, 600, back=True) == reshaped(short, 95, 600)


@pytest.mark.parametrize(("decay", "at", "updates"), [(60, 17, 42), (0.2, 43, 57)])
def test_a_warmup_does_not_jump_where_only_the_cooldown_is_left_after_it(decay, at, updates):
    horizon = Horizon(1000, ms.wsd(1e-3, 1000, 50, decay=decay))
    short = horizon.revise(reshaped(horizon, at, updates))
    rates = [short.rate(u) for u in range(updates + 1)]
    top = rates.index(max(rates))
    assert rates[top] == 1e-3 and rates[-1] == 0
    assert max(other - one for one, other in itertools.pairwise(rates)) <= 1e-4 * 1.001
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(
    ("schedule", "changes"),
    [
        # A run planned for the new length would be in the next cycle, or in the last one.
        (ms.cosine_restarts(1e-3, 1000, cycles=3), [(100, 5000), (1200, 2500)]),
        # The rates of the cycle that follows are as high as those which the walk goes back to.
        (ms.cosine_restarts(1e-3, 1000, cycles=3), [(50, 100), (60, 800)]),
        # The rate to rise to is the peak of a cycle.
        (ms.cosine_restarts(1e-3, 1000, cycles=4, decay=0.7), [(392, 2352)]),
    ],
)
def test_a_rise_stays_within_its_cycle(schedule, changes):
    horizon = Horizon(1000, schedule)
    for at, updates in changes:
        horizon = horizon.revise(reshaped(horizon, at, updates, back=True))
        walk, marks = horizon.schedule, [u for u in horizon.schedule.updates if u >= at]
        positions = [walk.position(u) for u in marks]
        lowest = positions.index(min(positions))
        assert positions[: lowest + 1] == sorted(positions[: lowest + 1], reverse=True)
        assert positions[lowest:] == sorted(positions[lowest:])
        rise = [walk(u) for u in range(at, marks[lowest] + 1)]
        assert all(0 <= other - one <= 1e-4 for one, other in itertools.pairwise(rise))


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_any_schedule_can_be_revised_without_a_jump(data):
    schedule = data.draw(st.one_of(list(OURS.values())))
    updates = data.draw(st.integers(2, 500))
    at = data.draw(st.integers(0, updates - 1))
    revision = reshaped(Horizon(updates, schedule), at, at + data.draw(st.integers(0, 500)))
    if revision.schedule is None:
        return
    revised = from_dict(dict(revision.schedule))
    assume(schedule(at) > 0)
    assert revised(at) == pytest.approx(schedule(at), rel=1e-9)


def test_a_cooldown_starts_when_what_remains_equals_its_length():
    planned = ms.wsd(1e-3, 400, 20, decay=60)
    longer = Horizon(400, planned).revise(reshaped(Horizon(400, planned), 100, 700))
    assert longer.schedule == planned.replace(steps=700)
    ratio = ms.wsd(1e-3, 400, 20, decay=0.2)
    shorter = reshaped(Horizon(400, ratio), 100, 200)
    assert from_dict(dict(shorter.schedule)) == ratio.replace(steps=200)
    again = Horizon(400, ratio).revise(shorter)
    again = again.revise(reshaped(again, 110, 150))
    assert again.trunk == 120  # 20% of 150, not the 40 updates of the first revision
    assert [cooldown_of(planned, n) for n in (1000, 100, 1)] == [60, 50, 1]


def test_a_cooldown_with_too_little_time_left_starts_at_once():
    planned = ms.wsd(1e-3, 400, decay=100, shape="linear")
    revised = from_dict(dict(reshaped(Horizon(400, planned), 250, 300).schedule))
    assert revised(250) == 1e-3 and revised(275) == pytest.approx(5e-4) and revised(300) == 0


def test_the_warmup_keeps_its_pace_in_a_longer_run_and_shrinks_in_a_shorter_one():
    planned = ms.warmup_linear(1e-3, 400, 40)
    longer = from_dict(dict(reshaped(Horizon(400, planned), 10, 4000).schedule))
    assert longer.phases[0].end == 40 and longer(11) == planned(11)
    shorter = from_dict(dict(reshaped(Horizon(400, planned), 10, 205).schedule))
    assert shorter.phases[0].end == 25 and shorter(25) == 1e-3
    asked = from_dict(dict(reshaped(Horizon(400, planned), 10, 4000, warmup=400).schedule))
    assert asked.phases[0].end == 400 and asked(400) == 1e-3


@pytest.mark.parametrize(
    "schedule",
    [
        ms.constant(1e-3),
        ms.warmup_constant(1e-3, 5),
        ms.exponential(1e-3, 0.99),
        ms.plateau(ms.warmup_linear(1e-3, 400)),
        ms.scale(lambda step: 1e-3, 0.5),
        lambda step: 1e-3,
    ],
)
def test_what_has_no_end_is_cut(schedule):
    revision = reshaped(Horizon(400, schedule), 10, 90, reason="late")
    assert revision.schedule is None and revision.updates == 90 and revision.reason == "late"


def test_a_staircase_is_stretched_with_its_run():
    planned = ms.multistep(1e-3, [100, 200])
    revised = Horizon(400, planned).revise(reshaped(Horizon(400, planned), 0, 800))
    assert [revised.rate(u) for u in (198, 200, 398, 400)] == [1e-3, planned(100), planned(100), planned(200)]
