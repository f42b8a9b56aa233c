"""The search for the peak: its parts on known numbers, and the trials on a real model."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.experiments.rate_finder.branches import Rounds, two_rounds
from mlxsched.experiments.rate_finder.budget import LEAST, Budget, parse_budget, usual_budget
from mlxsched.experiments.rate_finder.estimate import estimate, lowest, minimum
from mlxsched.experiments.rate_finder.finder import Search, _prior, bracket, doubt, explained
from mlxsched.experiments.rate_finder.layout import layout_of
from mlxsched.experiments.rate_finder.prior import Facts, Prior, prior_of
from mlxsched.experiments.rate_finder.range_test import RangeTest, range_test, steepest, valley
from mlxsched.experiments.rate_finder.result import Candidate, Found
from mlxsched.experiments.rate_finder.store import Store
from mlxsched.experiments.rate_finder.trials import LOST, Head, Trials, adam_excess, stands_for
from mlxsched.training.acceleration import accelerate
from mlxsched.training.session import prepare

FLAGS = {"iters": 30, "batch_size": 2, "warmup": 6, "num_layers": 1}


def planned(**flags):
    loaded = load_config(flags={**FLAGS, **flags})
    return prepare(loaded.config, loaded.origins)


@pytest.fixture(scope="module")
def trials():
    session = planned()
    return Trials(session, accelerate(session, None, lambda text: None))


def start_of(trials):
    return {path: value.tolist() for path, value in tree_flatten(trials._engine.snapshot()._asdict())}


def test_a_branch_can_be_repeated_and_leaves_the_start(trials):
    before = start_of(trials)
    first = trials.branch(1e-3, 4)
    assert start_of(trials) == before
    assert trials.branch(3e-3, 4) != first == trials.branch(1e-3, 4)


def test_a_branch_counts_its_updates_and_its_rows(trials):
    spent, seen = trials.spent, []
    trials.held_out, trials.on_spent = 1, seen.append
    trials._judge = None
    trials.branch(1e-3, 3)
    assert (
        trials.spent - spent == 3 + 0.5 * 1 / 2
    )  # one row is half of an update of two rows, and forward only
    assert seen == [spent + 1, spent + 2, spent + 3, trials.spent]


def test_an_interrupted_sweep_leaves_the_start(trials):
    before = start_of(trials)
    sweep = trials.sweep([1e-3, 1e-2, 1e-1], lambda position: position)
    next(sweep)
    sweep.close()
    assert start_of(trials) == before


def test_a_sweep_to_any_rate_breaks_and_its_curve_ends_there(trials):
    test = range_test(trials, 1e-4, 1e2, updates=8, repeats=2)
    assert test.broke is not None and len(test.rates) == len(test.losses) <= 8
    assert test.losses[-1] > min(test.losses)


def test_a_model_that_is_trained_as_a_whole_keeps_its_weights():
    session = planned(fine_tune_type="full", val_batches=0)
    before = {path: mx.array(value) for path, value in tree_flatten(session.loaded.model.parameters())}
    trials = Trials(session, accelerate(session, None, lambda text: None))
    assert trials.branch(1e-3, 1) < trials.branch(1e-3, 0)
    after = dict(tree_flatten(session.loaded.model.parameters()))
    assert all(mx.array_equal(value, after[path]) for path, value in before.items())


def test_without_validation_rows_the_end_of_the_first_epoch_judges():
    session = planned(val_batches=0)
    trials = Trials(session, accelerate(session, None, lambda text: None))
    trials.held_out = 4
    assert math.isfinite(trials.branch(1e-3, 2))
    assert trials.spent == 2 + 2  # two updates of two rows are judged on
    end = session.plan.updates_per_epoch
    assert not trials.trains_on_judged(end - 2) and trials.trains_on_judged(end - 1)


def test_validation_rows_are_never_trained_on(trials):
    trials.branch(1e-3, 1)
    assert not trials.trains_on_judged(10**6)


def test_a_search_in_which_nothing_is_learned_has_no_suggestion_and_is_not_stored(tmp_path):
    session = planned(learning_rate=1e-12, val_batches=0, iters=10)
    found = Search(session, Budget(LEAST)).run()
    assert found.suggestion is found.low is found.high is None
    assert not found.conclusive and "no branch learned anything" in found.reason
    store = Store(tmp_path, session)
    store.save(found)
    assert store.load() is None and not store.path.exists()


def test_an_inconclusive_result_does_not_replace_a_conclusive_one(tmp_path, trials):
    store = Store(tmp_path, trials._session)
    guess = Found(1e-3, 5e-4, 2e-3, False, "the highest peak was the best", (), RangeTest((), (), None))
    sure, failed = replace(guess, conclusive=True, suggestion=2e-3), replace(guess, suggestion=None)
    for found, stored in [(guess, guess), (sure, sure), (guess, sure), (failed, sure)]:
        store.save(found)
        assert store.load() == stored
    another = replace(sure, suggestion=1.5e-3)
    store.save(another)
    assert store.load() == another


@pytest.mark.parametrize(
    ("updates", "warmup", "run"), [(10, 2, 100), (10, 0, 100), (20, 500, 5000), (4, 1, 4)]
)
def test_a_branch_walks_through_the_whole_run(updates, warmup, run):
    head = Head(min(warmup, updates // 4), warmup)
    places = [stands_for(update, updates, head, run) for update in range(updates)]
    assert all(a < b for a, b in pairwise(places)) and places[0] >= 0 and places[-1] < run
    assert places[-1] >= run * (1 - 1 / updates) - 1
    assert sum(place < warmup for place in places) == min(warmup, updates // 4)


def test_the_excess_of_adam_without_bias_correction_is_that_of_the_two_moments():
    b1, b2, mean, square = 0.9, 0.999, 0.0, 0.0
    for update in range(12):  # a constant gradient of 1, of which a corrected Adam makes steps of 1
        mean, square = b1 * mean + 1 - b1, b2 * square + 1 - b2
        assert adam_excess(update, "adam", bias_correction=False) == pytest.approx(mean / math.sqrt(square))
    assert adam_excess(3, "sgd", bias_correction=False) == 1


@pytest.mark.parametrize("corrected", [True, False])
def test_without_bias_correction_half_of_a_branch_is_the_first_updates_of_the_run(corrected):
    session = planned(bias_correction=corrected, warmup=3, iters=40)
    made = Trials(session, accelerate(session, None, lambda text: None))
    peak = session.plan.peak
    rates = [made._rate(peak, update, 16) for update in range(16)]
    of_run = [session.rate(update) for update in range(8)]
    assert (rates[:8] == pytest.approx(of_run)) is not corrected
    assert rates[15] < session.rate(34)  # the rest goes on to the end of the run


def test_the_vertex_of_an_exact_parabola_is_found():
    losses = [Candidate(10**x, 5, 2 + (x + 3.2) ** 2) for x in (-4.0, -3.5, -3.0, -2.0)]
    assert lowest(losses) == (pytest.approx(10**-3.2), True)
    assert lowest(losses[:2]) == (10**-3.5, False)


def test_an_estimate_lies_between_branch_and_prior_and_leans_to_the_surer_one():
    unsure, sure = (estimate(Prior(1e-3, spread), 5e-4, True) for spread in (10.0, 1.1))
    assert 5e-4 <= unsure.peak < sure.peak < 1e-3
    open_ended = estimate(Prior(1e-3, 10.0), 5e-4, False)
    assert open_ended.peak > unsure.peak and open_ended.spread > unsure.spread


def test_a_prior_that_is_far_off_counts_for_less_than_it_says():
    near, far = (math.log(estimate(Prior(1e-3, 2.0), 1e-3 * by, True).peak / 1e-3) for by in (2, 64))
    assert far / math.log(64) > 0.95 > near / math.log(2)


def test_the_minimum_of_two_rounds_is_that_of_parabolas_with_a_shared_vertex():
    def branches(level, *places):
        return [Candidate(math.exp(x), 9, level * math.exp(0.02 * (x + 7.2) ** 2)) for x in places]

    first, second = (
        branches(3.0, -8.0, -7.1, -6.2),
        branches(2.5, -7.0, -6.4, -5.8),
    )  # the second starts above it
    assert minimum([first, second]) == (pytest.approx(math.exp(-7.2)), True)
    assert minimum([second]) == (pytest.approx(math.exp(-7.0)), False)


def test_a_diverged_branch_does_not_move_the_minimum():
    tried = [Candidate(1e-3 * 2.0**at, 9, 2 + 0.01 * at**2) for at in (-1, 0, 1)]
    lost = Candidate(8e-3, 9, LOST)
    assert minimum([tried, [*tried, lost]])[0] == pytest.approx(1e-3, rel=0.01)
    assert minimum([tried, [replace(one, loss=LOST) for one in tried]])[0] == pytest.approx(1e-3, rel=0.3)


def test_losses_that_fall_throughout_have_no_minimum():
    assert minimum([[Candidate(10.0**at, 9, 5.0 - at) for at in (-4, -3, -2)]]) == (
        pytest.approx(1e-2),
        False,
    )


def test_a_wall_bounds_a_minimum_that_the_fit_does_not_see():
    """The losses of a search: they fall up to a rate that diverges, which only the first round tries."""
    first = {9.41e-4: 1.9201, 2.35e-3: 1.6272, 5.88e-3: 1.0976, 0.0147: 1.9716}
    second = {2.92e-3: 1.5090, 5.26e-3: 1.1797, 9.46e-3: 0.9718}
    rounds = Rounds(*([Candidate(peak, 4, loss) for peak, loss in one.items()] for one in (first, second)))
    assert minimum(rounds) == (pytest.approx(0.0147), False)
    peak, sure = rounds.for_run(4, "adamw")
    assert sure and 2.35e-3 < peak < 9.46e-3


def test_a_vertex_without_a_bracketed_round_is_unsure():
    """The losses of a search: the first round rises throughout, and the second one falls."""
    first = {4.85e-4: 2.065, 1.456e-3: 2.108, 4.369e-3: 2.76}
    second = {2.35e-4: 2.015, 4.23e-4: 1.968, 7.61e-4: 1.959}
    tried = (
        [Candidate(peak, n, loss) for peak, loss in one.items()] for n, one in ((8, first), (16, second))
    )
    rounds = Rounds(*tried)
    peak, sure = rounds.for_run(16, "sgd")
    assert minimum(rounds) == (peak, True) and 4.85e-4 < peak < 7.61e-4
    assert not sure and not rounds.bracketed


def test_branches_are_corrected_for_their_length_except_with_sgd():
    best = [Candidate(1e-3 * 2.0**at, 16, 2 + at**2) for at in (-1, 0, 1)]
    rounds = Rounds([replace(one, updates=8) for one in best], best)
    assert rounds.for_run(512, "sgd")[0] == pytest.approx(1e-3)
    assert 8 / 512 < (rounds.for_run(512, "adamw")[0] / 1e-3) ** 5 < 16 / 512


class Bowl:
    """Stands in for trials: the loss of a branch is a parabola around ``best``, whatever its length."""

    def __init__(self, best: float) -> None:
        self.best, self.spent, self.peaks = best, 17.6, []  # spent on the range test and the rest before

    def branch(self, peak: float, updates: int) -> float:
        self.spent += updates + 1.6
        self.peaks.append(peak)
        return 1 + math.log(peak / self.best) ** 2


def searched(best: float, most: float = math.inf) -> tuple[Bowl, Rounds]:
    bowl = Bowl(best)
    return bowl, two_rounds(bowl, 1e-3, most, layout_of(100, run=500, batch_size=8))


@pytest.mark.parametrize("best", [7e-4, 1e-3, 1.5e-3])
def test_two_rounds_around_the_prior_find_the_best(best):
    bowl, rounds = searched(best)
    assert rounds.best == pytest.approx(best, rel=0.01) and rounds.bracketed
    assert len(bowl.peaks) == 6 and doubt(rounds, untrained=9.0) == ""
    assert {one.updates for one in rounds.second} == {16}


def test_extra_branches_follow_a_loss_that_falls_and_shorten_the_second_round():
    bowl, rounds = searched(2e-2)
    assert rounds.best == pytest.approx(2e-2, rel=0.1) and len(rounds.first) == 5
    assert 8 <= rounds.second[0].updates < 16 and bowl.spent < 100


def test_a_best_peak_at_the_end_is_inconclusive_and_the_next_command_is_named():
    _, rounds = searched(10.0)
    assert not rounds.bracketed
    said = doubt(rounds, untrained=99.0)
    assert "the highest peak was the best" in said and f"--learning-rate {rounds.best:.1e}" in said
    assert "the lowest peak" in doubt(searched(1e-9)[1], 999.0)


def test_no_branch_goes_beyond_what_the_range_test_allows():
    assert max(searched(1.0, most=2e-3)[0].peaks) <= 2e-3 * (1 + 1e-9)


def test_branches_that_learn_nothing_or_diverge_are_inconclusive():
    _, rounds = searched(1e-3)
    assert "no branch learned anything" in doubt(rounds, untrained=1.001)
    assert "rows that they trained on" in doubt(rounds, untrained=9.0, held_out=False)
    lost = Rounds(rounds.first, [Candidate(1e-3, 16, LOST)] * 3)
    assert "every branch diverged" in doubt(lost, untrained=9.0)


def test_the_prior_follows_the_run_and_the_model():
    def guess(hidden=128, modules=7, updates=100, mean_rate=0.5, **flags):
        return prior_of(load_config(flags=flags).config, Facts(hidden, modules, updates, mean_rate)).peak

    assert guess(**{"lora_parameters.scale": 2.0}) == pytest.approx(guess() * 10**0.75)
    assert guess(**{"lora_parameters.rank": 64}) == pytest.approx(guess() * 8**-0.55)
    assert guess(updates=1000) < guess() > guess(hidden=2048) and guess(modules=2) > guess()
    assert guess(mean_rate=1.0) == pytest.approx(guess() * 0.5**0.85)
    assert guess(bias_correction=False) < guess() > guess(lora_plus_ratio=16)
    assert guess(optimizer="lion") < guess() > guess(fine_tune_type="full")
    assert guess(optimizer="sgd") == pytest.approx(200 * guess())


def test_a_schedule_that_stays_at_its_peak_has_a_lower_prior(trials):
    run, peak = trials._session, trials._session.plan.peak
    share = sum(run.rate(update) for update in range(run.plan.updates)) / run.plan.updates / peak
    constant = replace(run, schedule=lambda update: peak)
    assert _prior(constant).peak / _prior(run).peak == pytest.approx(share**0.85)


def test_a_plan_stays_within_its_budget():
    for budget in (LEAST, 100, 500):
        for run in (10, 100, 5000):
            layout = layout_of(budget, run, batch_size=8)
            assert layout.cost <= 1.15 * budget and 2 <= layout.first <= layout.second <= run


def test_budgets_are_shares_times_and_updates():
    assert parse_budget("5%", 2000) == Budget(100.0) and parse_budget("90s", 10) == Budget(seconds=90.0)
    assert parse_budget("100 updates", 10) == parse_budget("100", 10) == usual_budget(500)
    assert [usual_budget(run).updates for run in (80, 20)] == [
        80,
        LEAST,
    ]  # not above the run, if that suffices
    assert Budget(seconds=40.0).in_updates(0.5) == 80
    with pytest.raises(UsageError, match="here 30 s"):
        Budget(seconds=3.0).in_updates(0.5)
    with pytest.raises(UsageError, match="5 updates"):
        parse_budget("5%", 100).in_updates(0.5)
    with pytest.raises(UsageError, match="20%"):
        parse_budget("lots", 100)


def test_the_marks_are_those_of_fastai_and_of_the_gradient():
    """A curve that is flat, falls and explodes: both rules choose a rate in the fall."""
    rates = [10 ** (-6 + 0.1 * i) for i in range(50)]
    losses = [4 - 2 / (1 + math.exp(-4 * (math.log10(r) + 3))) + (r / 0.05) ** 2 for r in rates]
    assert steepest(rates, losses) == pytest.approx(1e-3, rel=0.3)
    assert 1e-5 < valley(rates, losses) < 1e-2


def test_the_evidence_names_the_round_that_has_it():
    falling, bowl = (
        [Candidate(peak, updates, loss) for peak, loss in zip((5e-4, 1e-3, 2e-3), losses, strict=True)]
        for updates, losses in ((6, (3.0, 2.0, 1.0)), (4, (2.0, 1.0, 2.0)))
    )
    assert bracket(Rounds(bowl, falling)) == "in branches of 4 updates, higher and lower peaks were worse"
    assert bracket(Rounds(falling, bowl)) == "in branches of 4 updates, higher and lower peaks were worse"


def test_a_suggestion_other_than_the_best_branch_is_explained():
    rounds = Rounds([], [Candidate(peak, 16, loss) for peak, loss in ((5e-4, 2.0), (1e-3, 1.0), (2e-3, 2.0))])
    text = explained(rounds, 500, 5e-4, 2e-4, 4e-4)
    assert text.startswith("branches of 16 updates did best at 1e-3; for a run of 500, ")
    assert text.endswith(" give a lower peak, 5e-4, which is averaged with the prior, 2e-4")
    # A rate that rounds to another third digit than the suggestion is not named: it is the suggestion.
    assert explained(rounds, 500, 5e-4, 2e-4, 5.01e-4).endswith(" give a lower peak")
    assert explained(rounds, 500, 1e-3, 1e-3, 1.01e-3) == ""
