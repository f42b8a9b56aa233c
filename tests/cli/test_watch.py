"""Following a run that another writer records: lines, JSON and the live picture, until it ends."""

from __future__ import annotations

import json
import math
import threading
import time

import pytest
from rich.console import Console

from mlxsched.cli.main import main
from mlxsched.cli.watch import Watched, head_line, live_view, verdict_lines
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, Notice, UpdateMade


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(
        tmp_path / "one", config={"steps_per_report": 2}, origins={}, plan={"updates": 40}, versions={}
    )


def record(run, first, last):
    for update in range(first, last):
        run.metrics.record(
            UpdateMade(
                update, 2.0 / (1 + update), 1e-4, tokens=9, tokens_per_second=90.0, seconds=0.5, smoothed=1.0
            )
        )


def trained(run, updates=40, status="finished"):
    with run.lock():
        record(run, 0, updates)
        run.metrics.record(Evaluated(updates, 0.25, 1.3, best=True))
        run.update_info(status=status, update=updates, message="" if status == "finished" else "why it ended")


def test_a_finished_run_is_shown_and_left(run, capsys):
    trained(run)
    assert main(["watch", str(run.path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("update 40/40  loss 0.050")
    assert out[1] == "one: finished, 40 of 40 updates."
    assert out[2] == "Verdict: healthy."


@pytest.mark.parametrize("status", ["failed", "running"])  # without a lock, "running" means killed
def test_a_run_that_ended_badly_is_exit_code_1(run, capsys, status):
    trained(run, 30, status)
    assert main(["watch", str(run.path)]) == 1
    out = capsys.readouterr().out
    assert ("interrupted" if status == "running" else "failed") in out and "why it ended" in out


def test_the_records_are_json_lines_with_the_verdict_at_the_end(run, capsys):
    trained(run)
    assert main(["watch", str(run.path), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["kind"] for line in lines] == ["train"] * 40 + ["eval", "end"]
    assert lines[0]["loss"] == 2.0
    assert {"status": "finished", "updates": 40, "healthy": True, "findings": []}.items() <= lines[-1].items()


def test_what_is_recorded_meanwhile_is_shown_until_the_end(run, capsys):
    """The writer holds the lock in this process, as a training in another one would."""
    ready = threading.Event()

    def train():
        with run.lock():
            record(run, 0, 3)
            ready.set()
            time.sleep(0.3)  # the watcher looks at least once in between
            record(run, 3, 8)
            run.metrics.record(Notice(7, "spike", "a spike"))
            run.metrics.record(Evaluated(8, 0.25, 1.3))
            run.update_info(status="finished", update=8)

    writer = threading.Thread(target=train)
    writer.start()
    ready.wait()
    assert main(["watch", str(run.path), "--every", "0.05"]) == 0
    writer.join()
    out = capsys.readouterr().out
    assert [f"update {n}/40" in out for n in (3, 4, 6, 8)] == [True] * 4
    assert "update 5/40" not in out and "update 7/40" not in out  # steps_per_report is 2
    assert "Warning at update 7: a spike" in out and "validation after 8 updates" in out


def test_a_resume_cuts_the_records_back_and_what_comes_after_the_cut_is_shown_again(run):
    with run.lock():
        run.metrics.record(UpdateMade(0, math.nan, 1e-4))
        record(run, 1, 5)
        watched = Watched(run.path)
        assert [event.update for event in watched.look()] == [0, 1, 2, 3, 4]
        run.metrics.truncate_after(2)
        run.metrics.record(UpdateMade(3, 9.0, 1e-4))
        assert [event.update for event in watched.look()] == [3]  # what the cut kept was shown already
        assert watched.look() == []


def test_the_time_left_is_that_of_the_last_updates(run):
    with run.lock():
        record(run, 0, 10)
        watched = Watched(run.path)
        assert watched.status == "running" and watched.seconds_left == pytest.approx(30 * 0.5)
        assert head_line(watched) == "one: running, 10 of 40 updates, about 0:15 left for updates"
        assert verdict_lines(watched) == ["Verdict: too few updates to judge: 10, and most checks need 20."]
        record(run, 10, 40)
        watched.look()
        assert head_line(watched) == "one: running, 40 of 40 updates, measuring the adapter"


def test_the_live_picture_has_progress_chart_and_verdict(run):
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(live_view(Watched(run.path), 80))
    assert "waiting for the first update" in console.export_text()
    trained(run)
    console.print(live_view(Watched(run.path), 80))
    text = console.export_text()
    assert "40 of 40 updates" in text and "training loss" in text and "Verdict: healthy." in text


def test_a_path_without_a_run_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert main(["watch", str(tmp_path)]) == 2
    assert "no run in" in capsys.readouterr().err


def test_a_run_that_does_not_exist_yet_is_waited_for(tmp_path, run, capsys):
    later = tmp_path / "later"
    assert main(["watch", str(later), "--wait", "0.1"]) == 2
    err = capsys.readouterr().err
    assert f"There is no run in {later} yet. Waiting 0.1 s" in err and "no run in" in err
    trained(run)
    later.mkdir()  # as a job script may do
    threading.Timer(0.3, run.path.rename, [later]).start()
    assert main(["watch", str(later), "--wait", "20", "--plain"]) == 0
    assert "40 of 40 updates" in capsys.readouterr().out


@pytest.mark.parametrize("name, near", [("laptpo-001", " Did you mean 'laptop-001'?"), ("laptop-002", "")])
def test_a_mistyped_name_is_noticed_before_the_wait(tmp_path, run, capsys, name, near):
    run.path.rename(tmp_path / "laptop-001")
    assert main(["watch", str(tmp_path / name), "--json", "--wait", "0.05"]) == 2
    assert f"There is no run in {tmp_path / name} yet.{near} Waiting" in capsys.readouterr().err
