"""A simulated run with a clock of its own: it ends on time at any speed, with its schedule completed."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlxsched as ms
from mlxsched.planning.length import round_interval
from mlxsched.runs.events import UpdateMade
from mlxsched.training.pace import Horizon, Pace, Revision
from mlxsched.training.policies.base import Report, Revise
from mlxsched.training.policies.time_budget import EXTENDED, Budget, TimeBudget
from mlxsched.training.progress import Progress
from mlxsched.training.timing import Work

PEAK = 1e-3
LINEAR = ms.warmup_linear(PEAK, 1000, 30)
SHAPES = [LINEAR, ms.warmup_cosine(PEAK, 1000, 30), ms.wsd(PEAK, 1000, 30)]


def interval(total):
    return round_interval(max(total // 10, 1))


@dataclass
class Machine:
    """A run on a machine whose speed is ``slowness(second)``, times the given seconds of each part."""

    seconds: float
    schedule: object = LINEAR
    update: float = 0.1
    evaluation: float = 1.0
    saving: float = 0.05
    measuring: float = 1.0
    longer: float = 1.0
    noise: float = 0.1
    slowness: object = lambda second: 1.0
    planned: int = 1000
    most: int | None = None
    now: float = 0.0
    rates: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self):
        self.random = random.Random(0)
        self.progress, self.pace = Progress(), Pace(Horizon(self.planned, self.schedule))
        self.policy = self.make_policy()

    def make_policy(self, **budget):
        work = Work(100.0, interval, 100)
        return TimeBudget(
            Budget(self.seconds, most=self.most, **budget), self.pace, work, clock=lambda: self.now
        )

    def spend(self, seconds):
        self.now += seconds * self.slowness(self.now) * self.random.uniform(1 - self.noise, 1 + self.noise)

    def evaluate(self):
        self.spend(self.evaluation)
        self.progress.evaluated_update = self.progress.update
        assert list(self.policy.after_evaluation(self.progress, 1.0)) == []

    def between(self, *, done=False):
        assert list(self.policy.between_updates(self.progress, done=done)) == []
        every = interval(self.pace.updates)
        if (
            done or self.progress.update % every == 0
        ) and self.progress.evaluated_update != self.progress.update:
            self.evaluate()
        if done or self.progress.update % 100 == 0:
            self.spend(self.saving)
            self.progress.saved_update = self.progress.update

    def step(self):
        self.between()
        update = self.progress.update
        self.rates.append(self.pace.rate(update))
        tokens = self.random.randint(60, 140)
        self.spend(self.update * tokens / 100)
        self.progress.update += 1
        for action in self.policy.after_update(self.progress, UpdateMade(update, 1.0, 1e-3, tokens=tokens)):
            if isinstance(action, Revise):
                before = self.pace.rate(update + 1)
                self.pace.revise(action.revision)
                assert self.pace.rate(update + 1) == pytest.approx(before, abs=PEAK / 65536)
            elif isinstance(action, Report):
                self.notices.append(action.notice.message)

    def run(self):
        self.evaluate()
        self.spend(self.measuring)
        return self.go_on()

    def go_on(self):
        while self.progress.update < self.pace.updates:
            self.step()
        self.between(done=True)
        self.spend(self.longer * self.measuring + self.saving)
        return self


def is_on_time(machine):
    return abs(machine.now - machine.seconds) <= max(0.05 * machine.seconds, 3.0)


@pytest.mark.parametrize("schedule", SHAPES, ids=lambda schedule: type(schedule).__name__)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    seconds=st.floats(20, 3000),
    update=st.floats(0.01, 0.3),
    evaluation=st.floats(0, 0.01),
    changes=st.lists(st.tuples(st.floats(0.1, 0.6), st.floats(0.5, 3)), max_size=2),
)
def test_ends_on_time_with_the_schedule_completed(schedule, seconds, update, evaluation, changes):
    """The speed changes up to twice before 60% of the budget, to a half to three times that of the beginning.

    An evaluation takes up to 1% of the budget. With changes of a factor of 6 shortly before the end, or evaluations of a
    tenth of the budget, no length of the run ends on time.
    """
    changes, evaluation = sorted(changes), evaluation * seconds

    def slowness(second):
        return next((factor for share, factor in reversed(changes) if share * seconds <= second), 1.0)

    update = min(max(update, seconds / 3000), seconds / 150)  # a change takes five updates to be noticed
    machine = Machine(seconds, schedule, update=update, evaluation=evaluation, slowness=slowness).run()
    assert is_on_time(machine)
    made = len(machine.rates)
    assert made < 25 or max(machine.rates) == pytest.approx(PEAK)
    assert machine.pace.rate(made) == 0
    assert made < 500 or machine.rates[-1] <= 0.01 * PEAK  # a shorter run has larger steps
    assert len(machine.notices) < 60


def test_a_run_whose_answers_become_longer_ends_on_time():
    """The prompts have 100 tokens in all, the answers 100 before the training and 500 after it."""
    machine = Machine(60, measuring=5.0, longer=4.0)
    machine.progress.results["before"] = {"tokens": {"prompts": 100, "answers": 100, "expected": 500}}
    assert abs(machine.run().now - 60) < 3


def test_the_rate_falls_in_steps_no_larger_than_the_shape_s_own():
    """The largest step is that of the warmup or of the decay at the pace that is needed."""
    machine = Machine(60, slowness=lambda second: 3.0 if 20 < second < 40 else 1.0).run()
    steps = [one - other for one, other in itertools.pairwise(machine.rates)]
    warmup = machine.rates.index(max(machine.rates))
    assert min(steps) >= -PEAK / 10 and max(steps[warmup + 1 :]) <= PEAK / 50


@pytest.mark.parametrize("measuring", [0.0, 6.0])
def test_a_run_of_few_updates_decays_from_its_warmup_without_a_jump(measuring):
    """The rate of a laptop run of 9 updates once jumped from 3e-6 to the peak of 5e-5, and ended at half of it."""
    schedule = ms.warmup_linear(PEAK, 1000, 100)
    machine = Machine(
        40, schedule, update=2.5, measuring=measuring, slowness=lambda second: 1 + (second > 25)
    )
    rates = machine.run().rates
    assert 5 < len(rates) < 16
    assert max(one - other for other, one in itertools.pairwise(rates)) <= 1.001 * PEAK / 10
    assert rates[-1] <= 0.6 * max(rates) < 0.6 * PEAK and machine.pace.rate(len(rates)) == 0
    fix = "give a longer --max-time" + (", or --no-test" if measuring else "")
    assert machine.notices[-1].endswith(f"; too few for the warmup, which was cut short: {fix}")
    assert machine.pace.horizon.revisions[-1].reason.endswith(fix)


def test_a_steady_machine_needs_one_decision_and_a_few_corrections():
    machine = Machine(600, noise=0.05).run()
    assert is_on_time(machine) and len(machine.notices) <= 4
    assert "updates fit into the time limit of 10:00" in machine.notices[0]


def test_a_limit_below_the_planned_updates_names_both():
    slow = Machine(60, planned=4000, schedule=ms.warmup_linear(PEAK, 4000), most=4000).run()
    assert " updates instead of 4,000 fit into the time limit of 1:00, at " in slow.notices[0]


def test_the_given_number_of_updates_is_an_upper_bound():
    fast = Machine(600, planned=300, schedule=ms.warmup_linear(PEAK, 300), most=300).run()
    assert len(fast.rates) == 300 and fast.notices == [] and fast.now < 60
    slow = Machine(20, planned=300, schedule=ms.warmup_linear(PEAK, 300), most=300).run()
    assert len(slow.rates) < 200 and is_on_time(slow) and slow.rates[-1] < 0.05 * PEAK


def test_an_extension_by_a_time_lifts_the_limit_and_a_cooldown_sets_one():
    def revised(reason):
        machine = Machine(60, planned=300, schedule=ms.warmup_linear(PEAK, 300), most=300)
        machine.pace.revise(Revision(0, 320, ms.wsd(PEAK, 320).to_dict(), reason))
        return machine.run()

    assert len(revised(f"{EXTENDED} by 1:00").rates) > 350
    cooled = revised("cooldown in 80 updates")
    assert len(cooled.rates) == 320 and cooled.now < 58


def test_a_run_whose_time_is_up_ends_its_schedule_in_a_few_updates():
    machine = Machine(60, slowness=lambda second: 500.0 if 30 < second < 31 else 1.0).run()
    left = len(machine.rates) - machine.rates.index(min(rate for rate in machine.rates[50:] if rate > 4e-4))
    assert machine.now > 63 and left < 16 and machine.pace.rate(len(machine.rates)) == 0


@pytest.mark.parametrize("schedule", SHAPES, ids=lambda schedule: type(schedule).__name__)
@pytest.mark.parametrize("until", [35, 42])
def test_a_machine_that_recovers_at_the_end_uses_the_time(schedule, until):
    """At a fifth of the speed few updates are left to make; the run gets longer again when the speed is back."""
    machine = Machine(60, schedule, slowness=lambda second: 5.0 if 25 < second < until else 1.0).run()
    assert is_on_time(machine) and machine.pace.rate(len(machine.rates)) == 0


@pytest.mark.parametrize("schedule", SHAPES, ids=lambda schedule: type(schedule).__name__)
def test_a_schedule_chosen_on_a_slow_machine_does_not_end_when_the_machine_is_fast_again(schedule):
    """Between two looks by the clock alone, a machine that is 20 times as fast made nearly all of the updates."""
    slowness = lambda second: 20.0 if second < 12 else 1.0  # noqa: E731
    machine = Machine(60, schedule, evaluation=0.1, measuring=0.0, slowness=slowness).run()
    made = len(machine.rates)
    planned = sum(schedule(1000 * update // made) for update in range(made))
    assert made > 300 and sum(machine.rates) > 0.9 * planned


@pytest.mark.parametrize("schedule", SHAPES, ids=lambda schedule: type(schedule).__name__)
def test_a_rate_that_fell_while_the_machine_was_slow_rises_again(schedule):
    machine = Machine(60, schedule, slowness=lambda second: 8.0 if 15 < second < 36 else 1.0, measuring=0.5)
    rates = machine.run().rates
    made = len(rates)
    planned = [schedule(1000 * update // made) for update in range(made)]
    assert sum(rates) > 0.85 * sum(planned)
    rises = [other - one for one, other in itertools.pairwise(rates[50:])]
    assert 0 < max(rises) <= PEAK / 10 and machine.pace.rate(made) == 0
    assert any("; the rate, which fell too early, rises again" in notice for notice in machine.notices)


def test_time_before_an_interruption_counts():
    machine = Machine(60)
    machine.evaluate()
    machine.spend(machine.measuring)
    while machine.now < 30:
        machine.step()
    saved = machine.progress.to_dict()
    at = saved["times"]["at"]
    machine.progress, machine.now = Progress.from_dict(saved), 0.0  # a new process, with a clock of its own
    machine.policy = machine.make_policy(started=-2.0, last_record=at + 5.0)
    machine.go_on()
    assert machine.now == pytest.approx(60 - 30 - 5 - 2, abs=3.0)


def test_a_rollback_gives_no_time_back():
    machine = Machine(60)
    machine.evaluate()
    machine.spend(machine.measuring)
    while machine.now < 10:
        machine.step()
    saved = machine.progress.to_dict()
    while machine.now < 30:
        machine.step()
    machine.progress = Progress.from_dict(saved)
    machine.pace.load(saved | {"revisions": machine.pace.horizon.to_list()[:1]})
    assert is_on_time(machine.go_on())


def test_a_cooldown_that_was_asked_for_is_not_made_longer():
    from mlxsched.training.cooling import cooled

    machine = Machine(60)
    machine.evaluate()
    while machine.now < 20:
        machine.step()
    made = machine.progress.update
    machine.pace.revise(cooled(made, 30, machine.pace.rate(made), 0.0))
    machine.go_on()
    assert len(machine.rates) == made + 30


def test_an_extension_is_the_limit_and_not_the_first_plan():
    longer = ms.warmup_linear(PEAK, 300)
    machine = Machine(
        30,
        ms.warmup_linear(PEAK, 100),
        planned=100,
        most=100,
        update=0.06,
        evaluation=0.3,
        slowness=lambda second: 1.0 if second < 8 else 1.5,
    )
    machine.pace.revise(Revision(0, 300, longer.to_dict(), "extended to 300 updates"))
    machine.run()
    assert is_on_time(machine) and len(machine.notices) > 1 and 100 < len(machine.rates) < 300
