"""Lists as block characters."""

from __future__ import annotations

import math

from mlxsched.render.sparkline import sparkline


def test_a_rise_uses_every_block_once() -> None:
    assert sparkline(range(8)) == "▁▂▃▄▅▆▇█"


def test_long_lists_are_averaged_into_the_width() -> None:
    assert sparkline([0.0] * 50 + [1.0] * 50, 10) == "▁▁▁▁▁█████"
    assert sparkline([0.0, 1.0] * 50, 10) == "█" * 10  # every share has the same mean, the highest there is


def test_short_lists_are_not_stretched() -> None:
    assert len(sparkline([1.0, 2.0], 24)) == 2
    assert sparkline([]) == ""


def test_zero_is_the_floor_unless_something_is_lower() -> None:
    assert sparkline([7.0, 8.0]) == "██"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([-8.0, 0.0]) == "▁█"


def test_what_is_not_finite_is_a_gap() -> None:
    assert sparkline([1.0, math.nan, math.inf, 1.0]) == "█  █"
    assert sparkline([math.nan]) == " "


def test_plain_characters_where_the_terminal_has_no_blocks() -> None:
    text = sparkline(range(8), ascii_only=True)
    assert text.isascii() and len(set(text)) == 8
