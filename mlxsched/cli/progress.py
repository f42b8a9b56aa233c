"""What one sees while it trains: a live line on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import click

from mlxsched.cli.output import console, safe
from mlxsched.runs.events import Evaluated, Event, Notice, Tick, UpdateMade
from mlxsched.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

DOING_EVERY = 5.0  # seconds between plain lines about something long
SPEED_UPDATES = 20  # the speed shown is that of about so many updates


class Display:
    """Shows the events of a training of ``updates`` updates; a context manager."""

    def __init__(self, updates: int, every: int, *, plain: bool, done: int = 0) -> None:
        self._updates, self._every = updates, max(every, 1)
        self._live: _Live | None = None if plain or not sys.stderr.isatty() else _Live(updates, done)
        self._speed = Speed()
        self._told = 0.0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        if isinstance(event, UpdateMade):
            self._update(event)
        elif isinstance(event, Evaluated):
            self._say(evaluation_line(event))
        elif isinstance(event, Tick):
            self._doing(event)
        elif isinstance(event, Notice):
            self._say(f"{event.code} at update {event.update}: {safe(event.message)}")

    def _update(self, event: UpdateMade) -> None:
        self._speed.see(event)
        left = self._speed.eta(self._updates - event.update - 1)
        line = update_line(event, self._speed.tokens_per_second, left)
        if self._live:
            self._live.update(event.update + 1, line)
        elif (event.update + 1) % self._every == 0 or event.update + 1 == self._updates:
            click.echo(f"update {event.update + 1}/{self._updates}  {line}", err=True)

    def _doing(self, event: Tick) -> None:
        if self._live:
            self._live.doing(event)
        elif time.monotonic() - self._told > DOING_EVERY and event.done < event.total:
            self._told = time.monotonic()
            click.echo(f"{event.what}: {event.done}/{event.total}", err=True)

    def _say(self, text: str) -> None:
        if self._live:
            self._live.say(text)
        else:
            click.echo(text, err=True)


class Speed:
    """Tokens a second and seconds an update over the last updates; the first, which compiles, counts little."""

    def __init__(self) -> None:
        self._tokens = self._seconds = self._count = 0.0

    def see(self, event: UpdateMade) -> None:
        """Take an update in; older ones fade."""
        keep = 0.0 if self._count == 1.0 else 1 - 1 / SPEED_UPDATES
        self._tokens = self._tokens * keep + event.tokens
        self._seconds = self._seconds * keep + event.seconds
        self._count = self._count * keep + 1.0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, padding not counted."""
        return self._tokens / self._seconds

    def eta(self, updates: int) -> float:
        """Seconds that ``updates`` more updates will take."""
        return updates * self._seconds / self._count


def update_line(event: UpdateMade, tokens_per_second: float, eta: float) -> str:
    """Loss raw and smoothed, rate, gradient norm, speed, memory, time left."""
    return (
        f"loss {event.loss:.3f} ({event.smoothed:.3f})  lr {event.lr:.2e}  |g| {event.grad_norm:.2f}  "
        f"{tokens_per_second:,.0f} tok/s  {event.peak_memory_gb:.2f} GB  ETA {clock(eta)}"
    )


def evaluation_line(event: Evaluated) -> str:
    """Validation loss and whether it is the best so far."""
    best = ", the best so far" if event.best else ""
    after = counted(event.update, "update")
    return f"validation after {after}: loss {event.loss:.4f}, perplexity {event.perplexity:.4g}{best}"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds.

    >>> clock(75), clock(3700)
    ('1:15', '1:01:40')
    """
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class _Live:
    """A bar with the last update's numbers below it, through rich."""

    def __init__(self, updates: int, done: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns: Any = (TextColumn("{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn())
        self._progress: Progress = Progress(*columns, console=console(stderr=True), expand=True)
        self._training: TaskID = self._progress.add_task("training", total=updates, completed=done)
        numbers: Any = TextColumn("{task.fields[line]}")
        self._line: Progress = Progress(numbers, console=console(stderr=True))
        self._numbers: TaskID = self._line.add_task("", line="", total=None)
        self._other: tuple[str, TaskID] | None = None
        self._screen: Any = None

    def start(self) -> None:
        from rich.console import Group
        from rich.live import Live

        self._screen = Live(
            Group(self._progress, self._line),
            console=console(stderr=True),
            refresh_per_second=5,
            transient=True,
        )
        self._screen.start()

    def stop(self) -> None:
        self._screen.stop()

    def update(self, done: int, line: str) -> None:
        self._progress.update(self._training, completed=done)
        self._line.update(self._numbers, line=line)

    def doing(self, event: Tick) -> None:
        """A second bar for something long, which goes when it is done."""
        if self._other is None or self._other[0] != event.what:
            self._forget()
            self._other = (event.what, self._progress.add_task(event.what, total=event.total))
        self._progress.update(self._other[1], completed=event.done)
        if event.done >= event.total:
            self._forget()

    def _forget(self) -> None:
        if self._other is not None:
            self._progress.remove_task(self._other[1])
            self._other = None

    def say(self, text: str) -> None:
        self._screen.console.print(text)
