"""Which variant is the best, and when a difference is only noise."""

from __future__ import annotations

import pytest

from mlxsched.experiments.ranking import Measured, points_of, rank, verdict


def measured(variant, peak, *losses):
    return [Measured(variant, peak, seed, loss) for seed, loss in enumerate(losses)]


def test_each_variant_is_judged_at_its_own_best_peak():
    points = points_of(
        [
            *measured("constant", 2e-3, 0.60, 0.62),
            *measured("constant", 1e-3, 0.40, 0.41),
            *measured("constant", 5e-4, 0.45, 0.44),
            *measured("linear", 1e-3, 0.39, 0.38),
            *measured("linear", 2e-3, 0.30, 0.32),
        ]
    )
    best, other = rank(points)
    assert (best.variant, best.point.peak, best.edge) == ("linear", 2e-3, "high")
    assert (other.variant, other.point.peak, other.edge) == ("constant", 1e-3, "")
    assert other.to_dict()["loss"] == pytest.approx(0.405)
    assert rank(points, {"linear": (1e-3, 2e-3, 4e-3)})[0].edge == ""  # a higher one was tried, and dropped


def test_differences_are_taken_within_a_seed():
    """Seeds differ by 0.2 and the variants by 0.01: without pairing, that would be lost in the noise."""
    points = points_of([*measured("a", 1e-3, 0.30, 0.50, 0.40), *measured("b", 1e-3, 0.311, 0.509, 0.41)])
    best, other = rank(points)
    assert best.point.interval.half > 0.2
    assert other.difference.mean == pytest.approx(0.01) and other.difference.excludes_zero
    assert "significant difference" in verdict([best, other])[0]


def test_a_difference_within_the_noise_is_not_significant():
    points = points_of([*measured("a", 1e-3, 0.30, 0.34), *measured("b", 1e-3, 0.33, 0.33)])
    ranked = rank(points)
    assert ranked[1].to_dict()["significant"] is False
    assert "not significant" in verdict(ranked)[0] and "seeds would settle it" in verdict(ranked)[0]


def test_one_seed_has_no_interval():
    ranked = rank(points_of([*measured("a", 1e-3, 0.30), *measured("b", 1e-3, 0.33)]))
    assert ranked[0].to_dict()["interval"] is None
    assert "single seed" in verdict(ranked)[0]
    apart = rank(points_of([Measured("a", 1e-3, 0, 0.3), Measured("b", 1e-3, 1, 0.4)]))
    assert "no seed is common" in verdict(apart)[0]


def test_many_comparisons_need_wider_intervals():
    pair = [*measured("a", 1e-3, 0.30, 0.31, 0.29), *measured("b", 1e-3, 0.35, 0.36, 0.35)]
    alone = rank(points_of(pair))[1].difference
    among = rank(points_of([*pair, *measured("c", 1e-3, 0.4, 0.5, 0.6), *measured("d", 1e-3, 0.7, 0.7, 0.6)]))
    assert among[1].difference.mean == alone.mean and among[1].difference.half > 1.5 * alone.half


def test_a_peak_at_which_a_seed_diverged_is_not_the_best():
    points = points_of([*measured("a", 1e-3, 0.4, 0.4), *measured("a", 4e-3, 0.1, None)])
    assert [(one.point.peak, one.edge) for one in rank(points)] == [(1e-3, "low")]
    assert rank(points_of(measured("a", 1e-3, None))) == [] == verdict([])


def test_a_best_mean_over_other_seeds_does_not_hide_that_the_common_seeds_say_the_opposite():
    ahead = [Measured("a", 1e-3, seed, loss) for seed, loss in enumerate((2.8, 2.81, 0.1, 0.1))]
    behind = [Measured("b", 1e-3, seed, loss) for seed, loss in enumerate((2.0, 2.01))]
    ranked = rank(points_of([*ahead, *behind]))
    assert [one.variant for one in ranked] == ["a", "b"] and ranked[1].difference.mean == pytest.approx(-0.8)
    (line,) = verdict(ranked)
    assert "lower by" not in line
    assert "higher by 0.8000" in line and "on the 2 seeds that both have, a significant difference" in line
