"""What of a chart can be drawn, and what is refused."""

from __future__ import annotations

import math

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.chart import Chart, Mark, Series, require_points, span


def chart_of(*y: float, log_y: bool = False) -> Chart:
    return Chart("rate", "update", "learning rate", (Series("a", range(len(y)), y),), log_y=log_y)


def test_points_without_a_place_are_left_out() -> None:
    (curve,) = chart_of(1.0, math.nan, math.inf, 2.0).on("left")
    assert list(zip(curve.x, curve.y, strict=True)) == [(0, 1.0), (3, 2.0)]


def test_a_logarithmic_axis_holds_no_zero_and_nothing_below() -> None:
    (curve,) = chart_of(0.0, -1.0, 3.0, log_y=True).on("left")
    assert list(curve.y) == [3.0]


def test_the_logarithm_is_of_the_left_axis_only() -> None:
    loss = Series("loss", (1, 2), (0.0, 1.0), axis="right")
    chart = Chart("run", "update", "rate", (loss,), log_y=True)
    assert chart.on("right")[0].y == (0.0, 1.0)
    assert chart.on("left") == ()


def test_a_chart_without_a_point_is_refused_with_the_reason() -> None:
    with pytest.raises(UsageError, match="no finite value"):
        require_points(chart_of(math.nan))
    with pytest.raises(UsageError, match="--log"):
        require_points(chart_of(0.0, 0.0, log_y=True))
    require_points(chart_of(0.0))


def test_x_and_y_must_be_equally_long() -> None:
    with pytest.raises(ValueError, match="equally long; got 2 and 1"):
        Series("a", (1, 2), (1.0,))


@pytest.mark.parametrize(
    ("values", "from_zero", "expected"),
    [
        ([1.0, 3.0], False, (1.0, 3.0)),
        ([1.0, 3.0], True, (0.0, 3.0)),
        ([-1.0], True, (-1.0, 0.0)),
        ([4.0, 4.0], False, (2.0, 6.0)),
        ([-4.0], False, (-6.0, -2.0)),
        ([], False, (0.0, 1.0)),
    ],
)
def test_an_axis_has_a_length_whatever_it_holds(
    values: list[float], from_zero: bool, expected: tuple[float, float]
) -> None:
    assert span(values, from_zero=from_zero) == expected


def test_no_name_carries_control_characters_or_line_ends() -> None:
    dirty = "a\x1b[31m\x9b1m\nb\x07"
    chart = Chart(dirty, dirty, dirty, (Series(dirty, (0,), (1.0,)),), dirty, marks=(Mark(0, dirty),))
    texts = [chart.title, chart.x_label, chart.y_label, chart.right_label, chart.series[0].name]
    assert {*texts, chart.marks[0].label} == {"a1m b"}
