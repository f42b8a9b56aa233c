"""Student's t against published tables, and what an interval says."""

from __future__ import annotations

import math
import statistics

import pytest

from mlxsched.analysis.intervals import interval, seeds_needed, student_t


@pytest.mark.parametrize(
    ("level", "degrees", "t"),  # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2
    [
        (0.90, 1, 6.314),
        (0.95, 1, 12.706),
        (0.95, 2, 4.303),
        (0.95, 3, 3.182),
        (0.99, 4, 4.604),
        (0.95, 9, 2.262),
        (0.98, 10, 2.764),
        (0.95, 30, 2.042),
        (0.99, 100, 2.626),
    ],
)
def test_student_t_is_that_of_the_tables(level, degrees, t):
    assert student_t(level, degrees) == pytest.approx(t, abs=5e-4)


def test_an_interval_is_mean_and_t_times_the_standard_error():
    values = [0.30, 0.34, 0.32]
    found = interval(values)
    assert found.mean == pytest.approx(0.32)
    assert found.half == pytest.approx(4.3027 * statistics.stdev(values) / math.sqrt(3), rel=1e-4)
    assert found.excludes_zero and not interval([-1.0, 1.0]).excludes_zero


def test_a_single_value_has_no_interval_and_proves_nothing():
    found = interval([0.5])
    assert found.half is None and found.to_list() is None and not found.excludes_zero


def test_the_seeds_that_would_settle_it():
    differences = [0.01, 0.03]
    needed = seeds_needed(differences)
    assert needed is not None
    spread = statistics.stdev(differences)
    assert student_t(0.95, needed - 1) * spread / math.sqrt(needed) < 0.02
    assert student_t(0.95, needed - 2) * spread / math.sqrt(needed - 1) >= 0.02
    assert seeds_needed([0.01]) is None and seeds_needed([-1.0, 1.0]) is None
