"""Where the cycles of a schedule end."""

from __future__ import annotations

import pytest

from mlxsched import parse
from mlxsched.planning.cycles import cycle_ends


@pytest.mark.parametrize(
    ("spec", "ends"),
    [
        ("cosine_restarts(peak=1e-3, steps=200, cycles=4, warmup=20)", (65, 110, 155, 200)),
        ("wsd_cycles(peak=1e-3, steps=200, cycles=4, warmup=20)", (65, 110, 155, 200)),
        ("restarts(peak=1e-3, first=30, multiplier=2.0)", (30, 90, 200)),
        ("torch.CosineAnnealingWarmRestarts(lr=1e-3, T_0=50)", (50, 100, 150, 200)),
        ("repeat(schedule=linear(init=1e-3, end=1e-4, steps=50), period=50)", (50, 100, 150, 200)),
        ("warmup_linear(peak=1e-3, steps=200, warmup=20)", ()),
        ("one_cycle(peak=1e-3, steps=200)", ()),
        ("infinite(peak=1e-3, steps=200, warmup=20)", ()),
        ("bias_corrected(schedule=constant(1e-3))", ()),  # falls and rises in its first 20 updates
        ("chebyshev(low=1e-4, high=1e-3)", ()),
    ],
)
def test_a_cycle_ends_where_the_rate_has_fallen_and_rises_again(spec, ends):
    assert cycle_ends(parse(spec), 200) == ends


def test_each_end_is_a_minimum_of_the_rate():
    schedule = parse("cosine_restarts(peak=1e-3, steps=997, cycles=6, warmup=31)")
    for end in cycle_ends(schedule, 997)[:-1]:
        assert schedule(end - 2) > schedule(end - 1) < schedule(end)


def test_a_run_shorter_than_the_schedule_ends_its_last_cycle():
    assert cycle_ends(parse("cosine_restarts(peak=1e-3, steps=200, cycles=4)"), 120) == (50, 100, 120)
    assert cycle_ends(lambda update: 1e-3, 120) == ()
