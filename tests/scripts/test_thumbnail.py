"""The small SVG of the gallery: well-formed, with the curve where its numbers are."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from mlxsched.errors import UsageError
from mlxsched.render.chart import Chart, Mark, Series

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
from thumbnail import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, thumbnail

SVG = "{http://www.w3.org/2000/svg}"
CHART = Chart(
    "wsd <1-sqrt> & co",
    "update",
    "rate",
    (Series("a", (0, 50, 100), (0.0, 2.0, 1.0)),),
    marks=(Mark(50, "decay"),),
)


def test_the_curve_fills_its_frame() -> None:
    line = ElementTree.fromstring(thumbnail(CHART)).find(f"{SVG}polyline")
    assert line is not None
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
    low, high = HEIGHT - BOTTOM, TOP
    assert points == [(LEFT, low), (middle, high), (WIDTH - RIGHT, (low + high) / 2)]


def test_title_marks_and_numbers_are_in_it() -> None:
    words = list(ElementTree.fromstring(thumbnail(CHART)).itertext())
    for word in ("wsd <1-sqrt> & co", "decay", "0", "100", "2"):
        assert word in words


def test_rounding_hides_the_last_bits() -> None:
    nudged = Chart(
        CHART.title,
        "update",
        "rate",
        (Series("a", (0, 50, 100), (0.0, 2.0, 1.0 + 1e-15)),),
        marks=CHART.marks,
    )
    assert thumbnail(nudged) == thumbnail(CHART)


def test_nothing_to_draw_is_said() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        thumbnail(Chart("t", "update", "rate", (Series("a", (), ()),)))
