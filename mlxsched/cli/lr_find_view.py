"""Shows a search for the peak: its plan, progress and result."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlxsched.cli.output import console, note, picture, say, table
from mlxsched.text import clock, counted, number

if TYPE_CHECKING:
    from rich.progress import Progress

    from mlxsched.experiments.rate_finder.finder import Search
    from mlxsched.experiments.rate_finder.result import Found
    from mlxsched.render.chart import Chart

LINE_SECONDS = 5.0  # between plain lines
RULES = {
    "prior": "the prior: a formula, before anything is trained",
    "branches": "the minimum of a curve through the longest branches",
    "valley": "fastai's valley",
    "steepest": "the steepest descent of the range test",
    "tenth_of_divergence": "a tenth of the rate at which the range test diverged",
}


def show_search(search: Search) -> None:
    """Print the plan of the search, and its cost."""
    from mlxsched.experiments.rate_finder.layout import SWEEPS

    session, layout = search.session, search.layout
    plan = session.plan
    seconds = layout.cost * search.seconds_per_update
    rows = [
        ("run", f"{session.config.model}, {session.config.data}: {counted(plan.updates, 'update')}"),
        ("prior", f"{rate_text(search.prior.peak)}, within a factor of about {search.prior.spread:g}"),
        ("range test", f"{SWEEPS} sweeps of {counted(layout.sweep, 'update')}"),
        ("branches", layout.describe()),
        (
            "cost",
            f"about {layout.cost:.0f} updates, {_share(layout.cost / plan.updates)}: {clock(seconds)}"
            + (f"; {_expensive(search)}" if layout.cost > plan.updates / 2 else ""),
        ),
    ]
    table(rows, title="Search", stderr=True)


def _share(of_run: float) -> str:
    """The updates of a search relative to those of its run.

    >>> _share(0.25), _share(8.21)
    ('25% of the run', "8 times the run's updates")
    """
    return f"{of_run:.0%} of the run" if of_run < 2 else f"{of_run:.0f} times the run's updates"


def _expensive(search: Search) -> str:
    """What to do if a search costs about as much as its run."""
    rate = rate_text(search.prior.peak)
    return f"shorter searches rank rates badly. To skip the search, use --learning-rate {rate}, the prior"


class SearchDisplay:
    """Shows the progress of a search on stderr; a context manager, called with the updates spent and those planned."""

    def __init__(self, *, plain: bool) -> None:
        self._live: Progress | None = None if plain or not sys.stderr.isatty() else _bar()
        self._started = self._told = time.monotonic()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
            self._live.add_task("searching")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, spent: float, planned: float) -> None:
        if self._live:
            self._live.update(self._live.task_ids[0], completed=spent, total=planned)
            return
        now = time.monotonic()
        if now - self._told > LINE_SECONDS:
            self._told = now
            left = (now - self._started) / spent * max(planned - spent, 0)
            note(f"{spent:.0f} of {planned:.0f} updates, about {clock(left)} left")


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console(stderr=True), transient=True)


def show_found(found: Found) -> None:
    """Print the result: a table of the branches, the marks, a chart, the suggestion."""
    from mlxsched.render.terminal import draw, look_of_stdout

    best = min((one.loss for one in found.candidates), default=None)
    rows = [
        (rate_text(one.peak), one.updates, f"{one.loss:.4f}{' *' if one.loss == best else ''}")
        for one in found.candidates
    ]
    table(rows, header=("peak", "updates", "held-out loss"), title="Branches (*: the lowest loss)")
    marks = [(rate_text(rate), RULES.get(name, name)) for name, rate in found.marks.items()]
    if found.suggestion is not None:
        marks.insert(
            0, (rate_text(found.suggestion), "the suggestion: from all branches, for the length of the run")
        )
    table(marks, header=("rate", "rule"), title="The suggestion, and rates by other rules")
    picture(draw(chart_of(found), look_of_stdout(height=18)) + "\n")
    say(verdict(found))


def verdict(found: Found) -> str:
    """The result in a few sentences."""
    cost = f"Cost: {found.cost_updates:.0f} updates ({_share(found.cost_updates / found.updates)}), {clock(found.seconds)}."
    if found.suggestion is None:
        return f"No suggestion: {found.reason}. {cost}"
    words = "Suggestion" if found.conclusive else "Inconclusive; the best guess is"
    interval = f"{rate_text(found.low or 0)} and {rate_text(found.high or 0)}"
    other = f" {found.explanation[0].upper()}{found.explanation[1:]}." if found.explanation else ""
    return f"{words} {rate_text(found.suggestion)}, likely between {interval}: {found.reason}.{other}\n{cost}"


def rate_text(rate: float) -> str:
    """A rate with the digits that a search can determine.

    >>> rate_text(0.00128349)
    '1.28e-3'
    """
    return number(float(f"{rate:.3g}"))


def chart_of(found: Found) -> Chart:
    """Loss against the rate, on a logarithmic axis, with all rules marked."""
    from mlxsched.render.chart import Chart, Mark, Series

    series = [Series("range test", found.test.rates, found.test.losses)]
    for updates in sorted({one.updates for one in found.candidates}):
        tried = sorted((one.peak, one.loss) for one in found.candidates if one.updates == updates)
        peaks, losses = zip(*tried, strict=True)
        series.append(Series(f"branches of {counted(updates, 'update')}", peaks, losses))
    marks = [Mark(rate, name.replace("_", " ")) for name, rate in found.marks.items()]
    title = "loss against the learning rate"
    if found.suggestion is not None:
        marks.append(Mark(found.suggestion, "suggestion"))
        title += f": suggestion {rate_text(found.suggestion)}"  # where marks are close, not all names fit
    return Chart(
        title, "peak learning rate", "loss", tuple(series), log_x=True, log_y=True, marks=tuple(marks)
    )


def save_pictures(found: Found, paths: Iterable[Path]) -> None:
    """Write the chart to each of ``paths``."""
    from mlxsched.render.image import save

    for path in paths:
        save(chart_of(found), path)
        note(f"Chart: {path}")
