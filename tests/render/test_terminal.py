"""Charts as text: what stands where, at several widths, with and without colour and Unicode."""

from __future__ import annotations

import re

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.chart import Chart, Mark, Series
from mlxsched.render.terminal import Look, draw, look_of_stdout

STEPS = range(1001)
RATES = [2e-4 * min(1.0, step / 200, (1000 - step) / 800) for step in STEPS]
MARKS = (Mark(0, "warmup"), Mark(200, "decay"))


def chart_of(**changes: object) -> Chart:
    fields: dict[str, object] = {"series": (Series("linear", STEPS, RATES),), "marks": MARKS} | changes
    return Chart("a title", "update", "learning rate", **fields)  # type: ignore[arg-type]


def dots(text: str) -> list[tuple[int, int]]:
    """Row and column of every braille character."""
    lines = enumerate(text.splitlines())
    return [(row, column) for row, line in lines for column, sign in enumerate(line) if "⠀" < sign <= "⣿"]


@pytest.mark.parametrize(("width", "height"), [(40, 8), (60, 8), (80, 20), (120, 30)])
def test_the_picture_keeps_to_its_size(width: int, height: int) -> None:
    lines = draw(chart_of(), Look(width, height)).splitlines()
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) >= width - 2
    assert len(lines) <= max(height, 9)


def test_the_curve_is_where_the_numbers_are() -> None:
    text = draw(chart_of(), Look(80, 20))
    places = dots(text)
    top, bottom = min(row for row, _ in places), max(row for row, _ in places)
    lines = text.splitlines()
    assert lines[top].lstrip().startswith("2e-4")
    assert lines[bottom].lstrip().startswith("0")
    peak_columns = [column for row, column in places if row == top]
    left, right = min(column for _, column in places), max(column for _, column in places)
    peak = sum(peak_columns) / len(peak_columns)
    assert (peak - left) / (right - left) == pytest.approx(0.2, abs=0.03)


def test_phases_are_named_over_their_places() -> None:
    text = draw(chart_of(), Look(80, 20))
    names = next(line for line in text.splitlines() if "warmup" in line)
    frame = next(line for line in text.splitlines() if "┌" in line)
    assert names.index("warmup") == frame.index("┌") + 1
    assert names.index("decay") == frame.index("┬", frame.index("┬") + 1)


def test_a_name_that_another_covers_is_left_out_rather_than_written_over() -> None:
    text = draw(chart_of(marks=(Mark(0, "warmup"), Mark(10, "hold"), Mark(500, "decay"))), Look(60, 12))
    assert "warmup" in text and "hold" not in text and "decay" in text


def test_several_curves_have_a_legend_and_markers_of_their_own() -> None:
    loss = Series("loss", [1, 500, 1000], [3.0, 2.0, 1.5], "right")
    text = draw(chart_of(series=(Series("rate", STEPS, RATES), loss), right_label="loss"), Look(80, 20))
    assert "⠒⠒ rate" in text and "•• loss (right)" in text
    assert text.count("•") > 20
    assert any(line.endswith("├2") for line in text.splitlines())


def test_one_curve_has_no_legend() -> None:
    assert "linear" not in draw(chart_of())


def test_colour_only_where_asked_for() -> None:
    assert "\x1b[" not in draw(chart_of())
    assert "\x1b[38;5;" in draw(chart_of(), Look(color=True))


def test_plain_characters_where_the_terminal_has_no_others() -> None:
    text = draw(chart_of(log_y=True), Look(70, 16, ascii_only=True))
    assert text.isascii() and "*" in text and "|" in text


def test_a_logarithmic_axis_is_labelled_in_powers_of_ten() -> None:
    text = draw(chart_of(log_y=True), Look(80, 24))
    assert "1e-4┤" in text and "1e-5┤" in text


def test_the_same_chart_gives_the_same_text_whatever_was_drawn_before() -> None:
    before = draw(chart_of())
    draw(
        chart_of(
            log_y=True, series=(Series("x", [1, 2], [3.0, 4.0]), Series("y", [1], [1.0], "right", "dots"))
        )
    )
    assert draw(chart_of()) == before


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        draw(chart_of(series=(Series("zero", [0, 1], [0.0, 0.0]),), log_y=True))


def test_the_look_of_a_pipe_has_no_colour(monkeypatch: pytest.MonkeyPatch, capsys: object) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    look = look_of_stdout()
    assert (look.width, look.color) == (120, False)
    assert look_of_stdout(60, 8).width == 60


def test_what_is_behind_a_curve_is_drawn_with_small_dots() -> None:
    curve = Series("mean", [0, 1], [2.0, 1.0], behind=Series("", [0.5], [9.0]))
    chart = chart_of(series=(curve,), marks=())
    assert draw(chart, Look(70, 16)).count("·") == 1
    assert "." in draw(chart, Look(70, 16, ascii_only=True)).splitlines()[3]
    assert "mean" not in draw(chart, Look(70, 16))  # one curve needs no legend


def test_a_marked_curve_has_a_dot_at_each_point() -> None:
    chart = chart_of(series=(Series("a", [0, 1, 2], [1.0, 5.0, 2.0], style="marked"),))
    assert draw(chart, Look(70, 16)).count("●") == 3


def test_a_name_at_the_right_edge_is_shifted_into_the_picture() -> None:
    chart = chart_of(series=(Series("a", [0, 100], [1.0, 2.0]),), marks=(Mark(99, "best 0.25"),))
    assert "best 0.25" in draw(chart, Look(70, 16))


def test_the_legend_distinguishes_axes_and_styles_in_color_too() -> None:
    losses = ("training", "line"), ("validation", "dots"), ("test", "dots")
    right = [Series(name, [1, 500, 1000], [3.0, 2.0, 1.5], "right", style) for name, style in losses]  # type: ignore[arg-type]
    text = draw(chart_of(series=(Series("rate", STEPS, RATES), *right)), Look(80, 20, color=True))
    samples = [re.sub(r"\x1b\[[0-9;]*m", "", line).split()[0] for line in text.splitlines()[1:5]]
    assert samples == ["⠒⠒", "••", "xx", "xx"]
