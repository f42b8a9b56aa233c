"""What commands print: JSON without NaN, text without control codes, tables without colour off a terminal."""

from __future__ import annotations

import json

import pytest

from mlxsched.cli.output import note, print_json, safe, table, warn


def test_json_keeps_every_digit_and_has_null_for_what_is_not_finite(capsys):
    value = {"lr": 0.1 + 0.2, "loss": float("nan"), "nested": [{"x": float("-inf")}, (1, 2)], "text": "é"}
    print_json(value)
    out = capsys.readouterr().out
    assert json.loads(out) == {"lr": 0.1 + 0.2, "loss": None, "nested": [{"x": None}, [1, 2]], "text": "é"}
    assert "é" in out


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("over\rwrite\x08\x00", "overwrite"),
        ("\x9b31m", "31m"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("naïve 漢字", "naïve 漢字"),
    ],
)
def test_safe_strips_what_a_terminal_would_obey(dirty, clean):
    assert safe(dirty) == clean


def test_a_table_is_plain_text_off_a_terminal_with_numbers_to_the_right(capsys):
    table([("a", 1), ("long name", 1000), ("\x1b[31mred", 5)], header=("name", "n"))
    out = capsys.readouterr().out
    assert [line.rstrip() for line in out.splitlines()] == [
        "name          n",
        "a             1",
        "long name  1000",
        "red           5",
    ]


def test_markup_in_a_cell_is_text(capsys):
    table([("[bold]x[/bold]", "[/]")])
    assert "[bold]x[/bold]  [/]" in capsys.readouterr().out


def test_long_rows_stay_on_one_line_off_a_terminal(capsys):
    table([("x" * 120, "y")])
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_notes_and_warnings_go_to_stderr(capsys):
    note("one")
    warn("two")
    streams = capsys.readouterr()
    assert streams.err == "one\nWarning: two\n"
    assert streams.out == ""
