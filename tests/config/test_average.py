"""The forms of --average."""

from __future__ import annotations

import pytest

from mlxsched.cli.main import main
from mlxsched.config.average import MOST_POINTS, parse_average
from mlxsched.config.schema import RunConfig


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("last:5", "last:5"),
        (" LAST:2:products", "last:2:products"),
        ("cycles", "cycles"),
        ("cycles:products", "cycles:products"),
        ("ema", "ema:0.99"),
        ("ema:0.9", "ema:0.9"),
        ("merge", "merge:linear:5"),
        ("merge:8", "merge:linear:8"),
        ("merge:1-sqrt", "merge:1-sqrt:5"),
        ("merge:cosine:3:products", "merge:cosine:3:products"),
    ],
)
def test_every_form_is_read_and_written(text, whole):
    assert str(parse_average(text)) == whole
    assert parse_average(whole) == parse_average(text)
    assert RunConfig(average=text).average == whole


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("last", "one of last:K"),
        ("last:1", f"2 to {MOST_POINTS}"),
        ("last:99999999", f"2 to {MOST_POINTS}"),
        ("ema:1", "between 0 and 1"),
        ("ema:nan", "between 0 and 1"),
        ("ema:0.9:products", "one of last:K"),
        ("merge:geometric", "1-sqrt"),
        ("merge:linear:cosine", "1-sqrt"),
        ("swa", "one of last:K"),
        ("", "one of last:K"),
    ],
)
def test_anything_else_is_refused_with_the_forms(text, fix):
    with pytest.raises(ValueError, match=fix):
        parse_average(text)


def test_the_command_line_names_the_flag(capsys):
    assert main(["plan", "--average", "swa"]) == 2
    assert "--average" in (error := capsys.readouterr().err) and "last:K, cycles" in error
