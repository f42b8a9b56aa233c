"""``mlxsched watch``: follow a run that another process trains, in the terminal or in a browser."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import console, note, print_json_line, say
from mlxsched.text import clock, did_you_mean, without_controls

if TYPE_CHECKING:
    from rich.console import RenderableType

    from mlxsched.analysis.diagnosis import Diagnosis
    from mlxsched.runs.events import Recorded
    from mlxsched.runs.info import RunInfo

RECENT = 20  # updates whose mean time gives the time left
CHART_LINES = 18
WAIT_STEP = 0.2  # seconds between checks for a run that does not exist yet
ENDED_BADLY = ("failed", "interrupted")


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--web", is_flag=True, help="Serve the report to a browser on this machine, and keep it up to date."
)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port for --web. [a free one]")
@click.option(
    "--every",
    type=click.FloatRange(0.05, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between refreshes.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time to wait for a run that does not exist yet.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each record as a line of JSON.")
@click.option("--plain", is_flag=True, help="Print lines instead of a live display.")
def command(run: Path, web: bool, port: int, every: float, wait: float, as_json: bool, plain: bool) -> int:
    """Follow a run until it ends: rate and loss, the verdict so far, and the time left.

    Another process may be training the run, or still planning it. Watching does not change the run. Exits with 1 if the
    run failed or was killed.

    With --web, a browser on this machine shows the page of `mlxsched report`. Its address contains a random token, without
    which requests are rejected. The server runs until Ctrl-C.

    \b
    Examples:
      mlxsched watch runs/laptop-001
      mlxsched watch runs/laptop-001 --web
      mlxsched watch runs/laptop-001 --json | jq .loss
    """
    try:
        _await_run(run, wait)
        watched = Watched(run)
        if web:
            return _serve(run, port)
        if as_json:
            _print_json(watched, every)
        elif plain or not sys.stdout.isatty():
            _print_lines(watched, every)
        else:
            _show_live(watched, every)
    except KeyboardInterrupt:
        note("Stopped watching. This does not stop the run.")
        return 130
    return 1 if watched.status in ENDED_BADLY else 0


def _await_run(path: Path, seconds: float) -> None:
    """Wait until a run begins in ``path``. It creates its directory after planning, complete with its run.json.

    A job script may have created an empty directory before. No run begins in a directory that holds something else.
    """
    if not seconds or not _is_free(path):
        return
    note(
        f"There is no run in {path} yet.{_near(path)} Waiting {seconds:g} s for it to begin; Ctrl-C stops waiting."
    )
    end = time.monotonic() + seconds
    while _is_free(path) and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, WAIT_STEP))


def _is_free(path: Path) -> bool:
    try:
        return not os.path.lexists(path) or not os.listdir(path)
    except OSError:  # a file, or not readable: `RunDirectory.open` reports it
        return False


def _near(path: Path) -> str:
    """A "did you mean" if ``path`` resembles the name of an existing run. A difference in the number is not a typo."""
    from mlxsched.runs.directory import runs_in

    stem = path.name.rstrip("0123456789")
    others = [run.name for run in runs_in(path.parent) if run.name.rstrip("0123456789") != stem]
    return without_controls(did_you_mean(path.name, others, cutoff=0.75))


class Watched:
    """A run and its current records; `look` reads what was appended."""

    def __init__(self, path: Path) -> None:
        from mlxsched.runs.directory import RunDirectory
        from mlxsched.runs.recording import read_recording

        self.path = path
        self.info: RunInfo = RunDirectory.open(path).info
        self.recording = read_recording(path)
        self._seen = 0

    def look(self) -> list[Recorded]:
        """Read the run again; returns the records that no earlier look returned.

        A resume and a rollback cut the records back to a checkpoint; what comes after it is new again.
        """
        from mlxsched.runs.directory import RunDirectory

        self.info = RunDirectory.open(
            self.path
        ).info  # before the records: a run that has ended has written all of them
        before, self.recording = self.recording, self.recording.follow()
        self._seen = _common(before.events[: self._seen], self.recording.events)
        new = list(self.recording.events[self._seen :])
        self._seen = len(self.recording.events)
        return new

    @property
    def status(self) -> str:
        """running, finished, stopped, failed or interrupted."""
        from mlxsched.runs.summary import status_now

        return status_now(self.path, self.info)

    @property
    def made(self) -> int:
        """Updates made."""
        return int(self.recording.train["update"][-1]) + 1 if len(self.recording.train) else 0

    @property
    def planned(self) -> int | None:
        """Updates of the whole run."""
        from mlxsched.runs.summary import planned_updates

        return planned_updates(self.info)

    @property
    def seconds_left(self) -> float | None:
        """The time left, from the latest updates; None where it is not known."""
        seconds = self.recording.train.curve("seconds").values[-RECENT:]
        if not seconds or self.planned is None:
            return None
        return max(self.planned - self.made, 0) * sum(seconds) / len(seconds)

    def findings(self) -> list[Diagnosis]:
        """What the records so far say."""
        from mlxsched.analysis.diagnosis import diagnose
        from mlxsched.analysis.diagnosis.histories import run_history
        from mlxsched.runs.directory import RunDirectory

        return diagnose(run_history(RunDirectory(self.path, self.info), self.recording)) if self.made else []

    def follow(self, every: float) -> Iterator[list[Recorded]]:
        """The new records at each look, until the run has ended."""
        while True:
            running = self.status == "running"
            yield self.look()
            if not running:
                return
            time.sleep(every)


def _common(before: Sequence[Recorded], now: Sequence[Recorded]) -> int:
    """How many records both begin with; compared as text, since a loss that is NaN does not equal itself."""
    pairs = enumerate(zip(before, now, strict=False))
    shorter = min(len(before), len(now))
    return next((n for n, (old, new) in pairs if old is not new and repr(old) != repr(new)), shorter)


def head_line(watched: Watched) -> str:
    """Name, status, updates and time left."""
    of = f" of {watched.planned:,}" if watched.planned else ""
    left = watched.seconds_left if watched.status == "running" else None
    eta = (
        ""
        if left is None
        else f", about {clock(left)} left for updates"
        if left
        else ", measuring the adapter"
    )
    return f"{without_controls(watched.recording.name)}: {watched.status}, {watched.made:,}{of} updates{eta}"


def verdict_lines(watched: Watched) -> list[str]:
    """The verdict on the records so far, with the fix of each finding; notes are about the end, and wait for it."""
    from mlxsched.analysis.diagnosis.verdict import headline_of, verdict

    running = watched.status == "running"
    findings = [one for one in watched.findings() if not running or one.severity != "note"]
    head = headline_of(watched.info, watched.status, findings, watched.made, watched.recording)
    return verdict(head, findings)


# Lines


def _print_json(watched: Watched, every: float) -> None:
    """Each record as it is in metrics.jsonl, and at the end one of kind "end" with the verdict."""
    from mlxsched.analysis.diagnosis import is_healthy
    from mlxsched.analysis.diagnosis.verdict import failure_of

    for new in watched.follow(every):
        for event in new:
            print_json_line(event.record())
    findings = watched.findings()
    failed = failure_of(watched.info, watched.status, watched.recording, findings)
    print_json_line(
        {
            "kind": "end",
            "status": watched.status,
            "updates": watched.made,
            "message": watched.info.message,
            "healthy": is_healthy(findings) and not failed,
            "findings": [one.to_dict() for one in findings],
        }
    )


def _print_lines(watched: Watched, every: float) -> None:
    """A line for every few updates, each evaluation and each event; of what came before only the last update."""
    report = watched.info.config.get("steps_per_report")
    steps = report if isinstance(report, int) and report > 0 else 10
    first = True
    for new in watched.follow(every):
        updates = [event for event in new if event.record() and event.kind == "train"]
        shown = updates[-1:] if first else [one for one in updates if (one.update + 1) % steps == 0]
        for event in new:
            if event in shown or (event.kind != "train" and not first):
                say(event_line(event, watched))
        first = False
        sys.stdout.flush()
    say(f"{head_line(watched)}.")
    if watched.info.message:
        say(watched.info.message)
    for line in verdict_lines(watched):
        say(line)


def event_line(event: Recorded, watched: Watched) -> str:
    """A record as the training itself shows it."""
    from mlxsched.cli.progress import evaluation_line, notice_line, update_parts
    from mlxsched.runs.events import Evaluated, UpdateMade

    if isinstance(event, UpdateMade):
        of = f"/{watched.planned}" if watched.planned else ""
        parts = update_parts(event, event.tokens_per_second, watched.seconds_left or 0.0)
        return "  ".join([f"update {event.update + 1}{of}", *parts])
    return evaluation_line(event) if isinstance(event, Evaluated) else notice_line(event)


# A live picture


def _show_live(watched: Watched, every: float) -> None:
    from rich.live import Live

    screen = console()
    watched.look()
    with Live(live_view(watched, screen.width), console=screen, auto_refresh=False) as live:
        for new in watched.follow(every):
            if new or watched.status != "running":
                live.update(live_view(watched, screen.width), refresh=True)


def live_view(watched: Watched, width: int) -> RenderableType:
    """Name and progress, the last numbers, the chart and the verdict."""
    from rich.console import Group
    from rich.text import Text

    from mlxsched.render.run_chart import run_chart
    from mlxsched.render.terminal import draw, look_of_stdout
    from mlxsched.runs.events import UpdateMade

    if not watched.made:
        return Text(f"{head_line(watched)}; waiting for the first update")
    last = next(event for event in reversed(watched.recording.events) if isinstance(event, UpdateMade))
    chart = draw(run_chart([watched.recording]), look_of_stdout(width=min(width, 120), height=CHART_LINES))
    return Group(
        Text(head_line(watched), style="bold"),
        Text(event_line(last, watched)),
        Text.from_ansi(chart),
        *(Text(without_controls(line)) for line in verdict_lines(watched)),
    )


# In a browser


def _serve(path: Path, port: int) -> int:
    from mlxsched.errors import UsageError
    from mlxsched.render.report.server import LiveReport, ReportServer

    try:
        server = ReportServer(LiveReport(path), port)
    except OSError as error:
        raise UsageError(
            f"port {port} can't be used: {error.strerror}. Leave --port out for a free one."
        ) from error
    say(server.url)
    note("Open this address in a browser on this machine. Ctrl-C stops the server; the run continues.")
    sys.stdout.flush()
    with server, contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0
