"""What a training shows while it runs: lines that say how far it is, on any width of terminal."""

from __future__ import annotations

import io
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from mlxsched.cli import progress
from mlxsched.cli.progress import Display, LiveDisplay, update_parts, wrapped
from mlxsched.runs.events import (
    CheckpointSaved,
    Evaluated,
    LengthChanged,
    Measured,
    Notice,
    RunStarted,
    Tick,
    UpdateMade,
)
from mlxsched.training.timing import Work

UPDATE = UpdateMade(
    0, 2.5, 1e-4, 0.75, tokens=1000, targets=900, tokens_per_second=500.0, peak_memory_gb=12.34, seconds=2.0
)


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def shown(capsys) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_long_step_reports_every_few_seconds_and_its_end(capsys, clock):
    display = Display(10, 1, plain=True)
    for done in range(1, 18):
        display(Tick(0, "validation", done, 17))
        clock[0] += 2.0
    assert shown(capsys) == [f"validation: {done}/17" for done in (4, 7, 10, 13, 16, 17)]


def test_a_short_step_says_nothing(capsys, clock):
    display = Display(10, 1, plain=True)
    clock[0] += 1000.0  # however long ago the last one was
    for _ in range(2):
        for done in range(1, 18):
            display(Tick(0, "validation", done, 17))
            clock[0] += 0.1
    assert shown(capsys) == []


def test_kernels_are_counted_until_the_first_update(capsys):
    display = Display(10, 1, plain=True)
    assert display.show_kernels(12)
    assert display.show_kernels(60)
    display(UPDATE)
    assert not display.show_kernels(61)
    assert shown(capsys)[:2] == [
        "building kernels, once per machine: 12 of about 50",
        "building kernels, once per machine: 60",
    ]


def test_two_long_steps_in_turn_are_told_apart(capsys, clock):
    display = Display(10, 1, plain=True)
    for what in ("validation", "test answers"):
        for done in (1, 2):
            display(Tick(0, what, done, 2))
            clock[0] += 6.0
    assert shown(capsys) == []  # neither took long before its last step
    for what in ("validation", "test answers"):
        for done in (1, 2, 3):
            display(Tick(0, what, done, 3))
            clock[0] += 6.0
    assert shown(capsys) == ["validation: 2/3", "validation: 3/3", "test answers: 2/3", "test answers: 3/3"]


def test_plain_lines_report_every_nth_update_and_the_last(capsys):
    display = Display(5, 2, plain=True)
    for update in range(5):
        display(UpdateMade(update, 2.5, 1e-4, 0.75, 1000, 900, 500.0, 12.34, 2.0, 2.4))
    lines = shown(capsys)
    assert [line.split()[1] for line in lines] == ["2/5", "4/5", "5/5"]
    assert lines[0] == (
        "update 2/5  loss 2.500 (2.400)  lr 1.00e-04  |g| 0.75  500 tok/s  12.34 GB  ETA 0:06"
    )


def test_other_events_have_a_line_or_none(capsys):
    display = Display(5, 2, plain=True)
    display(Evaluated(3, 1.5, 4.48, best=True))
    display(Notice(3, "spike", "loss 9\x1b[2J"))
    display(RunStarted(0, 5))
    display(CheckpointSaved(3, "x"))
    assert shown(capsys) == [
        "validation after 3 updates: loss 1.5000, perplexity 4.48, the best so far",
        "Warning at update 3: loss 9",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_nothing_is_cut_off_at_any_width(width):
    parts = update_parts(UPDATE, 500.0, 4000.0)
    text = wrapped(parts, width)
    assert text.split() == "  ".join(parts).split()
    assert all(len(line) <= max(width, max(map(len, parts))) for line in text.split("\n"))


def test_the_live_display_shows_memory_and_time_left_at_60_columns(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", lambda stderr: Console(file=screen, width=60))
    live = LiveDisplay(10, 0)
    live.update(1, update_parts(UPDATE, 500.0, 4000.0))
    live.tick(Tick(0, "[bold]test answers[/bold]", 1, 9))
    Console(file=screen, width=60).print(live._picture())
    text = screen.getvalue()
    assert "12.34 GB" in text and "ETA 1:06:40" in text and "1/10" in text
    assert "[bold]test answers[/bold]" in text and "1/9" in text
    assert "…" not in text


def test_a_new_length_changes_the_time_that_is_left_at_once(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Display(1000, 10, plain=False) as display:
        display(UpdateMade(0, 1.0, 1e-3, tokens=100, seconds=1.0))
        assert display._live.parts[-1] == "ETA 16:39"
        display(LengthChanged(1, 17))
        assert display._live.parts[-1] == "ETA 0:16"


def test_the_time_left_includes_evaluations_and_the_measurement_at_the_end(monkeypatch, clock):
    """10 updates of 2 s; evaluations of 3 s after 4, 8 and 10 updates; 7 s for the test rows."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Display(10, 1, plain=False, work=Work(123.0, lambda updates: 4, 100)) as display:
        display(RunStarted(0, 10, seconds=50.0, measuring=5.0))
        display(Evaluated(0, 2.0, seconds=3.0))
        display(Measured(0, 7.0))
        display(UPDATE)
        assert display._live.parts[-1] == "ETA 0:34"
        assert display.eta(1) == 2 + 3 + 7
        clock[0] += 1.5
        display(LengthChanged(1, 10))
        assert display._live.parts[-1] == "ETA 0:32"
        for update in range(1, 10):
            display(replace(UPDATE, update=update))
        clock[0] += 6.0  # the evaluation, and a part of the answers
        display(Tick(10, "test answers after training", 50, 100))
        assert display._live.parts[-1] == "ETA 0:04"


def test_lines_wait_while_a_question_is_asked(capsys):
    """A validation line would be written behind the prompt, where the answer is typed."""
    display = Display(10, 1, plain=True)
    with display:
        display.pause()
        display(Evaluated(3, 1.5, 4.48, best=False))
        display(UPDATE)
        assert shown(capsys) == []
        display.unpause()
        assert [line.split()[0] for line in shown(capsys)] == ["validation", "update"]
        display.pause()
        display(Evaluated(4, 1.4, 4.06, best=False))
    assert shown(capsys) == [
        "validation after 4 updates: loss 1.4000, perplexity 4.06"
    ]  # the run was stopped


def test_a_length_that_hardly_differs_from_the_last_one_has_no_line(capsys):
    display, before = Display(1000, 1000, plain=True), 1000
    lengths = (400, 410, 395, 450, 440, 300, 300, 299, 260)
    remarks = {299: "; the rate rises again", 260: "; the rate rises again"}
    for update, length in enumerate(lengths):
        display(LengthChanged(update, length))
        message = f"{length} updates instead of {before:,} fit{remarks.get(length, '')}"
        display(Notice(update, "time_budget", message))
        before = length
    display(LengthChanged(9, 255))
    display(Notice(9, "time_budget", "255 updates instead of 260 fit; the rate rises again"))
    display(LengthChanged(10, 20))
    display(Notice(10, "cooldown", "the run ends after 20 updates"))
    display(LengthChanged(11, 15))
    display(Notice(11, "time_budget", "15 updates instead of 20 fit"))
    lines = [line.split(": ")[1] for line in shown(capsys)]
    assert lines == [
        "400 updates instead of 1,000 fit",
        "450 updates fit",
        "300 updates fit",
        "299 updates fit; the rate rises again",
        "260 updates fit; the rate rises again",
        "the run ends after 20 updates",
        "15 updates fit",
    ]
