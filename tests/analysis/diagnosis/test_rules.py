"""Each rule sees its symptom in curves made for it, and is silent on healthy ones.

These curves have one symptom each and known noise. How the rules do on real trainings is measured by
benchmarks/diagnosis.py.
"""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.analysis.diagnosis import RULES, History, diagnose, is_healthy
from mlxsched.runs.events import Evaluated, UpdateMade

N = 200


def linear(update, peak=2e-4, warmup=10):
    return peak * min(update / warmup, (N - update) / (N - warmup))


def learning(update, speed=25.0):
    return 0.5 + 2.0 * math.exp(-update / speed)


def history(loss=learning, rate=linear, valid=None, *, noise=0.03, every=20, seed=0, made=N, **more):
    """Updates with multiplicative noise, and an evaluation every ``every`` updates."""
    draw = np.random.default_rng(seed)
    more_of = more.pop("of_update", lambda update: {})
    events = []
    for update in range(made + 1):
        if update % every == 0:
            events.append(Evaluated(update, (valid or loss)(update)))
        if update < made:
            value = loss(update) * math.exp(noise * draw.standard_normal())
            fields = {"tokens_per_second": 1000.0, "peak_memory_gb": 1.0, **more_of(update)}
            events.append(UpdateMade(update, value, rate(update), **fields))
    facts = {"planned": N, "status": "finished", "peaks": (2e-5, 2e-4, 5e-3), **more}
    return History(tuple(events), **facts)


def codes(made):
    return [finding.code for finding in diagnose(made)]


@pytest.mark.parametrize("noise", [0.0, 0.03, 0.2])
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "rate",
    [linear, lambda u: 2e-4, lambda u: 1e-4 * (1 + math.cos(math.pi * u / N))],
    ids=["linear", "constant", "cosine"],
)
def test_a_healthy_run_is_healthy(noise, seed, rate):
    assert is_healthy(diagnose(history(rate=rate, noise=noise, seed=seed)))


@pytest.mark.parametrize("seed", range(5))
def test_training_rows_that_are_harder_than_the_validation_rows_are_no_fault(seed):
    def training(update):
        return 1.5 - 0.2 * update / N

    easy = history(training, valid=lambda u: 1.0 - 0.15 * (1 - math.exp(-u / 30)), noise=0.05, seed=seed)
    assert is_healthy(diagnose(easy))


@pytest.mark.parametrize("seed", range(5))
def test_the_noise_of_many_evaluations_is_no_oscillation(seed):
    draw = np.random.default_rng(seed)
    noisy = {u: learning(u) * (1 + 0.005 * draw.standard_normal()) for u in range(N + 1)}
    assert "oscillating" not in codes(history(valid=noisy.__getitem__, every=2, rate=lambda u: 2e-4))


def climbing(update):
    return 2.0 + 3.0 * (1 - math.exp(-update / 20))


def exploding(update):
    return learning(update) + 3.0 * math.exp(-(((update - 15) / 8) ** 2))


def zigzag(update):
    return learning(update) * (1.2 if update // 20 % 2 else 1.0)


def turning(update):
    return learning(update) + max(update - 80, 0) * 0.003


def stalled(update):
    return learning(min(update, 60), 15.0)


CASES = {
    "diverged": {"loss": climbing, "valid": climbing},
    "early_explosion": {"loss": exploding},
    "oscillating": {"valid": zigzag, "rate": lambda u: 5e-3},
    "too_slow": {"loss": lambda u: 2.5 - 0.0002 * u, "rate": lambda u: 1e-6},
    "early_plateau": {"loss": stalled, "rate": lambda u: 2e-3},
    "overfitting": {"valid": turning},
    "underfitting": {
        "rate": lambda u: max(2e-4 * (1 - u / 50), 1e-6),
        "loss": lambda u: learning(min(u, 50)),
    },
    "slow_decay": {"rate": lambda u: 2e-4 * (1 - u / 600)},
    "still_improving": {"loss": lambda u: 2.5 - 0.004 * u, "rate": lambda u: 2e-4},
    "slowing_down": {"of_update": lambda u: {"tokens_per_second": 1000.0 / (1 + u / 50)}},
    "memory_growth": {"of_update": lambda u: {"peak_memory_gb": 1 + u / 100}},
    "non_finite": {"of_update": lambda u: {"applied": u < 150}},
    "interrupted": {"made": 100, "status": "stopped"},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("code", CASES)
def test_a_symptom_is_seen_and_nothing_else(code, seed):
    assert codes(history(seed=seed, **CASES[code])) == [code]


@pytest.mark.parametrize("at", [60, 120, 199])
def test_a_bad_row_is_a_spike_at_its_update(at):
    (found,) = diagnose(history(lambda u: 4.0 if u == at else learning(u), valid=learning))
    assert (found.code, found.update) == ("spike", at)
    assert "rows" in found.why


def test_a_run_that_ends_where_its_schedule_ends_has_no_slow_decay():
    half = {"rate": lambda u: 2e-4 * (1 - u / 600), "is_run": True}
    assert codes(history(**half)) == []
    assert codes(history(schedule_steps=600, **half)) == ["slow_decay"]


def test_a_schedule_that_is_low_for_long_on_purpose_is_no_underfitting():
    steps = {"rate": lambda u: 2e-4 if u < 60 else 2e-6, "is_run": True}
    assert codes(history(schedule_steps=N, **steps)) == []
    assert codes(history(schedule_steps=60, **steps)) == ["underfitting"]


def test_a_fast_fall_at_the_start_is_no_spike():
    assert is_healthy(diagnose(history(lambda u: 2.0 / (1 + u))))
    assert is_healthy(diagnose(history(lambda u: 2.0 / (1 + u), every=N)))


def test_a_jump_of_the_rate_explains_a_spike():
    (found,) = diagnose(
        history(
            lambda u: 4.0 if u == 101 else learning(u),
            lambda u: 2e-3 if u in (100, 101) else 2e-4,
            valid=learning,
        )
    )
    assert "rate had just risen" in found.why


def test_an_evaluation_that_rises_after_a_jump_of_the_rate_is_a_spike():
    high = {100: 4e-3}
    jumped = history(
        valid=lambda u: learning(u) * (1.5 if u == 120 else 1.0), rate=lambda u: high.get(u, 2e-4)
    )
    assert codes(jumped) == ["spike"]
    assert codes(history(valid=lambda u: learning(u) * (1.5 if u == 120 else 1.0))) == []


def test_a_rise_of_the_validation_loss_at_the_start_is_an_explosion_if_it_was_made_up_for():
    risen = {20: 2.2, 40: 2.8, 60: 2.0}
    assert codes(history(valid=lambda u: risen.get(u, learning(u)))) == ["early_explosion"]


@pytest.mark.parametrize(("warmup", "advised"), [(10, True), (20, False), (40, False)])
def test_a_longer_warmup_is_advised_only_where_it_is_short(warmup, advised):
    (found,) = diagnose(history(exploding, lambda u: linear(u, warmup=warmup)))
    assert found.code == "early_explosion" and "--learning-rate 6.7e-5" in found.fix
    assert ("--warmup 0.1" in found.fix) == ("after 10 updates" in found.why) == advised


def test_two_rows_of_garbage_at_the_start_are_no_explosion():
    bad = history(lambda u: 9.0 if u in (1, 3) else learning(u), valid=learning)
    assert codes(bad) == ["spike"]


def test_a_validation_loss_that_goes_up_and_down_is_not_overfitting():
    wild = {u: 1.0 + 0.2 * (u // 20 % 2) for u in range(60, N + 1)}
    assert "overfitting" not in codes(history(valid=lambda u: wild.get(u, learning(u)), rate=lambda u: 5e-3))


def test_a_jump_of_the_rate_is_not_the_peak_of_a_schedule_that_ended_early():
    assert "underfitting" not in codes(history(rate=lambda u: 2e-2 if u in (60, 61) else 2e-4))


def test_noise_of_tiny_batches_is_no_spike():
    draw = random.Random(1)
    heavy = [draw.lognormvariate(0.0, 0.5) for _ in range(N)]
    assert "spike" not in codes(history(lambda u: learning(u) * heavy[min(u, N - 1)], valid=learning))


def test_a_run_that_failed_and_was_resumed_is_not_interrupted():
    assert codes(history(status="finished")) == []
    assert "interrupted" not in codes(history(made=100, status="running"))


@pytest.mark.parametrize("steps, missing", [(N, "the decay"), (None, "the rest of its updates")])
def test_a_constant_schedule_that_was_stopped_misses_no_decay(steps, missing):
    (found,) = diagnose(history(made=100, status="stopped", is_run=True, schedule_steps=steps))
    assert found.code == "interrupted" and found.why.startswith(missing)


@pytest.mark.parametrize(("saved", "offered"), [(0, False), (90, True)])
def test_a_cooldown_is_offered_only_from_a_checkpoint_with_an_update(saved, offered):
    (found,) = diagnose(history(made=100, status="interrupted", is_run=True, saved=saved))
    assert ("mlxsched cooldown" in found.fix, "starts from the beginning" in found.fix) == (
        offered,
        not offered,
    )


def test_a_lower_rate_is_the_usual_one_where_a_tenth_is_still_too_high():
    (found,) = diagnose(history(climbing, lambda u: 3.0))
    assert found.fix.endswith("--learning-rate 2e-4")
    (found,) = diagnose(history(climbing, lambda u: 3.0, peaks=None))
    assert found.fix.endswith("--learning-rate 0.3")


def test_the_place_is_where_the_loss_left_its_start():
    (found,) = diagnose(history(lambda u: 2.5 if u < 90 else 6.0))
    assert found.code == "diverged"
    assert found.update == pytest.approx(90, abs=5)


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, math.nan])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, numbers, st.booleans()), max_size=60), st.integers(1, 9))
def test_any_log_is_diagnosed_without_an_error(rows, every):
    events = []
    for update, (loss, rate, valid, applied) in enumerate(rows):
        events.append(
            UpdateMade(update, loss, rate, tokens_per_second=valid, peak_memory_gb=rate, applied=applied)
        )
        if update % every == 0:
            events.append(Evaluated(update, valid))
    with np.errstate(all="ignore"):
        found = diagnose(History(tuple(events), planned=70, status="stopped"))
    assert all(0.5 <= finding.confidence <= 1 for finding in found)
    assert len({finding.code for finding in found}) == len(found) <= len(RULES)


def test_a_hundred_thousand_records_are_no_burden():
    """The pairwise statistics are bounded: without that this would need 10**10 pairs."""
    events = [UpdateMade(u, learning(u / 100), 1e-4, tokens_per_second=1.0) for u in range(100_000)]
    assert is_healthy(diagnose(History(tuple(events))))


def test_rows_known_by_heart_are_overfitting_at_any_rate():
    wander = {u: 0.9 + 0.15 * (u // 20 % 2) for u in range(60, N + 1)}
    learned = history(
        lambda u: 0.1 + 2.0 * math.exp(-u / 15),
        valid=lambda u: wander.get(u, learning(u)),
        rate=lambda u: 2e-3,
    )
    assert codes(learned) == ["overfitting"]


def burst(update):
    """Far above the start at update 15, and on its way back to just above it."""
    return 2.5 + 0.6 * min(update / 8, 1) + 4.0 * math.exp(-(((update - 15) / 6) ** 2))


def test_an_explosion_that_the_decay_could_not_undo_has_not_diverged():
    made = {"loss": burst, "valid": burst, "rate": lambda u: 8e-3 * (1 - u / N) ** 2}
    assert codes(history(**made)) == ["early_explosion"]
    assert codes(history(**made, status="failed")) == ["diverged"]
    assert codes(history(**{**made, "rate": lambda u: 8e-3})) == ["diverged"]


def stalling(update):
    """Lowest at update 80, and 4% higher from 120 on, at a rate that stays high."""
    return learning(min(update, 80), 15.0) * (1 + 0.04 * min(max(update - 80, 0) / 40, 1))


@pytest.mark.parametrize(("floor", "code"), [(0.45, "early_plateau"), (0.05, "overfitting")])
def test_a_plateau_and_a_rising_loss_have_one_cause(floor, code):
    made = history(lambda u: floor + 2.0 * math.exp(-u / 25), valid=stalling, rate=lambda u: 2e-3)
    assert codes(made) == [code]


@pytest.mark.parametrize(("floor", "code"), [(0.3, "spike"), (0.05, "overfitting")])
def test_a_spike_and_a_rise_after_it_have_one_cause(floor, code):
    made = history(
        lambda u: 4.0 if u == 121 else floor + 2.0 * math.exp(-u / 25),
        valid=lambda u: learning(u) * (1.2 if u > 121 else 1.0) + max(u - 121, 0) * 0.002,
    )
    assert codes(made) == [code]
