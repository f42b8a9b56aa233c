"""What commands print: JSON without NaN, text without control codes, tables without colour off a terminal."""

from __future__ import annotations

import ast
import json
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import mlxsched.cli
from mlxsched.cli import output
from mlxsched.cli.output import note, print_json, say, table, warn
from mlxsched.text import without_controls


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
        ("lone \ud800", "lone \ufffd"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("naïve 漢字", "naïve 漢字"),
    ],
)
def test_what_a_terminal_would_obey_is_removed(dirty, clean):
    assert without_controls(dirty) == clean


def test_a_table_is_plain_text_off_a_terminal_with_numbers_to_the_right(capsys):
    table([("a", 1), ("long name", 1000), ("\x1b[31mred", 5)], header=("name", "n"))
    out = capsys.readouterr().out
    assert [line.rstrip() for line in out.splitlines()] == [
        "name          n",
        "a             1",
        "long name  1000",
        "red           5",
    ]


def test_optional_columns_go_before_a_cell_is_broken(capsys, monkeypatch):
    rows = [("runs/a-long-name-001", "finished", "180 / 180", "2026-01-02 03:04")]
    header = ("run", "status", "updates", "created")
    for width, expected in ((60, "180 / 180  2026-01-02 03:04"), (45, "180 / 180"), (20, "finished")):
        monkeypatch.setattr(output, "console", lambda width=width, **_: Console(width=width))
        table(rows, header=header, optional=("created", "updates"))
        assert capsys.readouterr().out.splitlines()[1].strip().endswith(expected)


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


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
DIRTY = st.text(st.sampled_from([*CONTROLS, "a", "[", "]", "m", "\ud800", "é", "\n"]), max_size=30)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(DIRTY)
def test_no_control_character_gets_through(capfd, text):
    say(text)
    note(text)
    warn(text)
    table([(text, 1)], header=("a", "b"))
    print_json({"value": text, text: [text]})
    streams = capfd.readouterr()
    assert not set(streams.out + streams.err) & set(CONTROLS)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(DIRTY)
def test_json_gives_the_text_back(capfd, text):
    print_json({"value": text})
    assert json.loads(capfd.readouterr().out) == {"value": text}


def test_every_command_prints_through_this_module():
    """`click.echo` and `print` would let control characters through."""
    commands = Path(mlxsched.cli.__file__).parent
    direct = {
        f"{path.name}:{node.lineno}"
        for path in commands.glob("*.py")
        if path.name not in ("output.py",)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho", "print")
    }
    assert {place.split(":")[0] for place in direct} <= {"main.py"}  # the version number


def test_long_work_is_announced_and_short_work_is_not(monkeypatch, capsys):
    told = threading.Event()
    monkeypatch.setattr(output, "note", lambda text: told.set() if text == "Reading ..." else None)
    monkeypatch.setattr(output, "SILENCE", 0.0)
    with output.waiting("Reading"):
        assert told.wait(30)
    monkeypatch.setattr(output, "SILENCE", 3600.0)
    with output.waiting("Reading"):
        timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    for timer in timers:
        timer.join(30)
        assert not timer.is_alive()
