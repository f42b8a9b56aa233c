"""Charts of schedules: the right values at the right updates, phases marked."""

from __future__ import annotations

import pytest

from mlxsched.render.curves import DEFAULT_STEPS, phase_marks, schedule_chart, small_picture
from mlxsched.render.terminal import Look
from mlxsched.schedules import constant, log_sweep, plateau, warmup_constant, warmup_linear, wsd

LINEAR = warmup_linear(2e-4, 1000, 100)


def test_a_curve_holds_the_schedules_own_values() -> None:
    (curve,) = schedule_chart([("linear", LINEAR)]).on("left")
    assert (curve.x[0], curve.x[-1]) == (0, 1000)
    assert list(curve.y) == [LINEAR(step) for step in curve.x]


def test_the_boundaries_are_looked_at_whatever_the_points() -> None:
    (curve,) = schedule_chart([("linear", LINEAR)], points=7).on("left")
    assert 100 in curve.x and max(curve.y) == 2e-4


def test_several_schedules_share_the_longest_steps() -> None:
    chart = schedule_chart([("short", warmup_linear(1e-4, 100)), ("long", LINEAR), ("open", constant(1e-4))])
    assert [curve.x[-1] for curve in chart.on("left")] == [1000, 1000, 1000]
    assert chart.marks == ()


def test_a_schedule_without_an_end_gets_a_length() -> None:
    assert schedule_chart([("open", constant(1e-4))]).on("left")[0].x[-1] == DEFAULT_STEPS
    assert schedule_chart([("open", constant(1e-4))], steps=30).on("left")[0].x[-1] == 30


def test_phases_are_marked_where_they_begin() -> None:
    marks = phase_marks(wsd(2e-4, 1000, 100, decay=200), 1000)
    assert [(mark.x, mark.label) for mark in marks] == [(0, "warmup"), (100, "stable"), (800, "decay")]
    assert phase_marks(constant(1e-4), 1000) == ()
    assert [mark.label for mark in phase_marks(LINEAR, 2000)] == ["warmup", "decay", "end"]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_small_picture_is_small_and_says_what_it_shows(width: int) -> None:
    lines = small_picture(LINEAR, look=Look(width, 9)).splitlines()
    assert len(lines) <= 10 and max(map(len, lines)) <= width
    assert lines[0] == "learning rate" and lines[-1].strip() == "update"
    assert "warmup decay" in " ".join(lines[1].split())
    assert lines[-2].split()[0] == "0" and lines[-2].split()[-1] == "1000"


def test_a_sweep_over_powers_of_ten_is_drawn_on_a_logarithmic_axis() -> None:
    sweep = log_sweep(1e-6, 1e-1, 100)
    assert schedule_chart([("sweep", sweep)]).log_y
    assert not schedule_chart([("sweep", sweep), ("line", warmup_linear(1e-3, 100))]).log_y


def test_a_plateau_is_drawn_with_a_metric_that_makes_it_act() -> None:
    controller = plateau(warmup_constant(2e-4, 10), decay_rate=0.5, patience=2)
    curve = schedule_chart([("plateau", controller)], steps=200).series[0]
    levels = list(dict.fromkeys(rate for step, rate in zip(curve.x, curve.y, strict=True) if step >= 10))
    assert levels == [2e-4, 1e-4, 5e-5, 2.5e-5, 1.25e-5]
    live, expected = controller.live(), []
    for step in range(
        201
    ):  # the same by hand: an evaluation every 10 updates, a loss that falls until update 66
        if step and step % 10 == 0:
            live.observe(max(1.0, 2.0 - 3 * step / 200))
        expected.append(float(live(step)))
    assert list(curve.y) == [expected[step] for step in curve.x]
