"""Picture files by matplotlib: formats, the same bytes twice, and errors that say what to do."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.chart import Chart, Mark, Series
from mlxsched.render.image import _figure, save

CHART = Chart(
    "rate & loss",
    "update",
    "learning rate",
    (Series("rate", (0, 1, 2), (0.0, 2e-4, 1e-4)), Series("loss", (1, 2), (3.0, 2.5), "right", "dots")),
    right_label="loss",
    marks=(Mark(1, "decay"),),
)
START_OF_FILE = {"png": b"\x89PNG\r\n", "svg": b"<?xml", "pdf": b"%PDF-"}


@pytest.fixture(autouse=True)
def needs_matplotlib() -> None:
    pytest.importorskip("matplotlib")


@pytest.mark.parametrize("kind", START_OF_FILE)
def test_each_format_is_what_its_name_says(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"lr.{kind}"
    save(CHART, path, dpi=40)
    assert path.read_bytes().startswith(START_OF_FILE[kind])


@pytest.mark.parametrize("kind", START_OF_FILE)
def test_the_same_chart_gives_the_same_bytes(kind: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    save(CHART, first, dpi=40)
    save(CHART, second, dpi=40)
    assert first.read_bytes() == second.read_bytes()


def test_an_svg_says_what_the_chart_says(tmp_path: Path) -> None:
    save(CHART, tmp_path / "lr.svg")
    text = " ".join(ElementTree.parse(tmp_path / "lr.svg").getroot().itertext())
    for word in ("rate & loss", "update", "learning rate", "loss", "decay", "2e-4"):
        assert word in text


def test_curves_are_drawn_on_their_own_axes_at_their_values() -> None:
    figure = _figure(CHART, (8, 4.5))
    left, right = figure.axes
    assert left.lines[0].get_ydata().tolist() == [0.0, 2e-4, 1e-4]
    assert right.lines[0].get_ydata().tolist() == [3.0, 2.5]
    assert left.get_ylim()[0] == 0.0 and left.get_ylim()[1] < 3e-4


def test_a_logarithmic_axis_gets_no_zero() -> None:
    figure = _figure(Chart("t", "update", "rate", (Series("a", (0, 1), (0.0, 1e-4)),), log_y=True), (8, 4.5))
    assert figure.axes[0].get_yscale() == "log"
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1e-4]


def test_a_dollar_in_a_name_is_a_dollar(tmp_path: Path) -> None:
    save(
        Chart("$\\frac$", "update", "rate", (Series("a", (0, 1), (1e-5, 1e-4)),), log_y=True),
        tmp_path / "lr.svg",
    )
    text = (tmp_path / "lr.svg").read_text()
    assert "$\\frac$" in text and "1e-4" in text


def test_an_unknown_format_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'lr\.bmp'.*\.png, \.svg or \.pdf"):
        save(CHART, tmp_path / "lr.bmp")


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "lr.png").mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*lr\.png"):
        save(CHART, tmp_path / "lr.png")


def test_without_matplotlib_the_command_that_installs_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"pip install 'mlxsched\[report\]'"):
        save(CHART, tmp_path / "lr.png")


def test_a_folder_that_is_missing_is_not_created(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such directory"):
        save(CHART, tmp_path / "missing" / "lr.png")
    assert not (tmp_path / "missing").exists()


def test_what_is_behind_a_curve_is_faint_in_the_same_colour_and_has_no_name() -> None:
    curve = Series("mean", (0, 1), (2.0, 1.0), behind=Series("", (0, 1), (9.0, 0.5)))
    axes = _figure(Chart("t", "update", "loss", (curve,)), (8, 4.5)).axes[0]
    faint, line = axes.lines
    assert faint.get_color() == line.get_color() and faint.get_alpha() < 0.5
    assert axes.get_ylim()[1] > 9 and faint.get_label().startswith("_")  # matplotlib lists no such label


def test_a_short_logarithmic_axis_has_round_ticks() -> None:
    chart = Chart("t", "peak", "loss", (Series("a", (5e-5, 8e-4), (0.29, 0.62)),), log_x=True, log_y=True)
    axes = _figure(chart, (8, 4.5)).axes[0]
    assert list(axes.get_xticks()) == [5e-5, 7e-5, 1e-4, 1.5e-4, 2e-4, 3e-4, 5e-4, 7e-4]
    assert list(axes.get_yticks()) == [0.3, 0.4, 0.5, 0.6]


def test_a_name_at_the_right_edge_ends_at_its_mark() -> None:
    chart = Chart(
        "t",
        "update",
        "loss",
        (Series("a", (0, 100), (1.0, 2.0)),),
        marks=(Mark(0, "warmup"), Mark(99, "best")),
    )
    texts = _figure(chart, (8, 4.5)).axes[0].texts
    assert [(text.get_text(), text.get_ha()) for text in texts] == [("warmup", "left"), ("best", "right")]


def test_names_that_are_close_stand_above_each_other() -> None:
    marks = (Mark(50, "the best peak"), Mark(51, "the prior"), Mark(52, "the valley"), Mark(53, "steepest"))
    figure = _figure(Chart("t", "peak", "loss", (Series("a", (0, 100), (1.0, 2.0)),), marks=marks), (8, 4.5))
    figure.draw_without_rendering()
    texts = figure.axes[0].texts
    boxes = [text.get_window_extent() for text in texts]
    assert [text.get_text() for text in texts] == ["the best peak", "the prior", "the valley"]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
