"""The display of a training: a live bar on a terminal, plain lines elsewhere; all on stderr."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from mlxsched.cli.output import console, note
from mlxsched.runs.events import (
    Evaluated,
    Event,
    LengthChanged,
    Measured,
    Notice,
    RunStarted,
    Tick,
    UpdateMade,
)
from mlxsched.text import about, clock, counted, without_controls
from mlxsched.training.timing import Costs, Work

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.progress import Progress, TaskID

TICK_SECONDS = 5.0  # between plain lines about the same long step
_LENGTHS = ("cooldown", "plateau")  # notices of a new length, except those of a time limit
_EXPECTED = ("average", "cooldown", "paused", "plateau", "slept", "snapshot", "time_budget")
KERNELS = 50  # that MLX builds for a training, which is not known in advance: 40 to 52 with the preset laptop
TOLD_AGAIN = 0.1  # a new length is shown if it differs by this share from the last one shown
UPDATES_ALONE = Work(1.0, None, 1)
SPEED_UPDATES = 20  # the speed shown is a mean over about this many updates


class Display:
    """Shows the events of a training of `updates` updates; a context manager and a sink.

    Args:
        updates: how many updates the run is planned to make.
        every: plain lines report every `every`-th update; the live display shows each one.
        plain: print lines even on a terminal.
        done: updates that were made before, when the run resumes.
        work: what the run does besides its updates, for the time left.
    """

    name = "the display"

    def __init__(
        self, updates: int, every: int, *, plain: bool, done: int = 0, work: Work = UPDATES_ALONE
    ) -> None:
        self._updates, self._every = updates, max(every, 1)
        self._live = None if plain or not sys.stderr.isatty() else LiveDisplay(updates, done)
        self._made = done
        self._last: UpdateMade | None = None
        self._last_at = 0.0
        self._speed = Speed(work)
        self._step = LongStep()
        self._held: list[str] | None = None  # lines that wait until a question is answered
        self._told = Told()

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self._release()

    def __call__(self, event: Event) -> None:
        if isinstance(event, LengthChanged):
            self._set_length(event.updates)
        elif isinstance(event, RunStarted):
            self._set_length(event.updates)
            self._speed.measuring = event.measuring
            if event.seconds is not None:
                self._say(f"Estimated time: {about(event.seconds)}{'' if event.resumed else ' in all'}.")
        elif isinstance(event, Measured):
            self._speed.measuring = event.seconds
        elif isinstance(event, UpdateMade):
            self._show_update(event)
        elif isinstance(event, Evaluated):
            self._speed.evaluation = event.seconds if math.isfinite(event.seconds) else 0.0
            self._say(evaluation_line(event))
        elif isinstance(event, Tick):
            self._show_tick(event)
        elif isinstance(event, Notice):
            told = self._told.of(event, self._updates)
            if told is not None:
                self._say(notice_line(told))

    def show_kernels(self, built: int) -> bool:
        """Show how many CPU kernels MLX has built; False once updates are made, as few kernels are built after that."""
        what = "building kernels, once per machine"
        if self._speed:
            return False
        if self._live:
            self._live.tick(Tick(self._made, what, built, max(KERNELS, built + 1)))
        else:
            note(f"{what}: {built} of about {KERNELS}" if built < KERNELS else f"{what}: {built}")
        return True

    @property
    def made(self) -> int:
        """Updates made so far."""
        return self._made

    @property
    def left(self) -> int:
        """Updates left in the run."""
        return self._updates - self._made

    def eta(self, updates: int) -> float | None:
        """The seconds to the end if ``updates`` more are made; None before the first update."""
        return self._speed.eta(self._made, self._made + updates) if self._speed else None

    def pause(self) -> None:
        """Take the live display off the terminal, for a question; lines wait until it is answered."""
        self._held = []
        if self._live:
            self._live.stop()

    def unpause(self) -> None:
        """Show the live display again."""
        if self._live:
            self._live.start()
        self._release()

    def _release(self) -> None:
        held, self._held = self._held or [], None
        for text in held:
            self._say(text)

    def _set_length(self, updates: int) -> None:
        """The run's length differs from the plan: it was extended, or fitted to a time budget."""
        self._updates = updates
        if self._live:
            self._live.set_length(updates)
            self._show_time_left()

    def _show_time_left(self) -> None:
        if self._live and self._last:
            self._live.parts = self._parts(self._last)

    def _parts(self, event: UpdateMade) -> list[str]:
        """The numbers of the last update, with the time left now: an evaluation may have begun since."""
        eta = self._speed.eta(self._made, self._updates) - (time.monotonic() - self._last_at)
        return update_parts(event, self._speed.tokens_per_second, max(eta, 0.0))

    def _show_update(self, event: UpdateMade) -> None:
        self._made, self._last, self._last_at = event.update + 1, event, time.monotonic()
        self._speed.add(event)
        parts = self._parts(event)
        if self._live:
            self._live.update(event.update + 1, parts)
        elif (event.update + 1) % self._every == 0 or event.update + 1 == self._updates:
            self._say("  ".join([f"update {event.update + 1}/{self._updates}", *parts]))

    def _show_tick(self, event: Tick) -> None:
        if self._live:
            self._live.tick(event)
            self._show_time_left()
        elif self._step.due(event):
            self._say(f"{event.what}: {event.done}/{event.total}")

    def _say(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
        elif self._live:
            self._live.say(text)
        else:
            note(text)


class Told:
    """The length shown last. A time limit may change the length dozens of times, mostly by little.

    A change is shown if the new length differs from the one shown last by at least `TOLD_AGAIN`, or comes with a new remark.
    """

    def __init__(self) -> None:
        self._length, self._remark = 0, ""

    def of(self, event: Notice, length: int) -> Notice | None:
        """What to show of ``event``, which may have changed the ``length``; None for nothing."""
        if event.code != "time_budget":
            self._length = length if event.code in _LENGTHS else self._length
            return event
        remark = event.message.partition(";")[2]
        known = not remark or remark == self._remark
        if known and abs(length - self._length) < TOLD_AGAIN * self._length:
            return None
        from mlxsched.training.policies.time_budget import without_former_length

        last, self._length, self._remark = self._length, length, remark
        if not last:  # the message names the length in the plan, which was shown
            return event
        return replace(event, message=without_former_length(event.message))


class LongStep:
    """Decides which ticks of a long step get a plain line: one every few seconds, and the last if any had one."""

    def __init__(self) -> None:
        self._what = ""
        self._since = 0.0
        self._shown = False

    def due(self, event: Tick) -> bool:
        """Whether `event` gets a line."""
        now = time.monotonic()
        if event.what != self._what:
            self._what, self._since, self._shown = event.what, now, False
        if event.done >= event.total:
            self._what = ""
            return self._shown
        if now - self._since < TICK_SECONDS:
            return False
        self._since, self._shown = now, True
        return True


class Speed:
    """Tokens per second and seconds per update, as means over the latest updates, and the time left.

    The first update, which includes compilation, counts only until there is a second one. ``evaluation`` is the
    duration of the latest evaluation in seconds; ``measuring`` is that expected of the measurement after the last update.
    """

    def __init__(self, work: Work) -> None:
        self._work = replace(work, tokens=1.0)
        self.evaluation = self.measuring = 0.0
        self._tokens = self._seconds = self._count = 0.0

    def add(self, event: UpdateMade) -> None:
        """Add an update; the weight of earlier ones decays exponentially."""
        keep = 0.0 if self._count == 1.0 else 1 - 1 / SPEED_UPDATES
        self._tokens = self._tokens * keep + event.tokens
        self._seconds = self._seconds * keep + event.seconds
        self._count = self._count * keep + 1.0

    def __bool__(self) -> bool:
        return self._count > 0

    @property
    def tokens_per_second(self) -> float:
        """Real tokens a second, padding not counted."""
        return self._tokens / self._seconds

    def eta(self, made: int, total: int) -> float:
        """The seconds from update `made` to the end of a run of `total` updates, including evaluations and the measurement."""
        update = deque([(self._seconds / self._count, 1)])
        return self._work.seconds(Costs(self.evaluation, 0.0, self.measuring, update), made, total)


def update_parts(event: UpdateMade, tokens_per_second: float, eta: float) -> list[str]:
    """Loss (and its running mean), rate, gradient norm, speed, memory and the time left, each as a text."""
    return [
        f"loss {event.loss:.3f} ({event.smoothed:.3f})",
        f"lr {event.lr:.2e}",
        f"|g| {event.grad_norm:.2f}",
        f"{tokens_per_second:,.0f} tok/s",
        f"{event.peak_memory_gb:.2f} GB",
        f"ETA {clock(eta)}",
    ]


def wrapped(parts: Iterable[str], width: int) -> str:
    """`parts` joined by two spaces, broken into lines of at most `width` characters between parts.

    >>> print(wrapped(["loss 2.000", "lr 1.00e-04", "ETA 1:15"], 24))
    loss 2.000  lr 1.00e-04
    ETA 1:15
    """
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += "  " + part
        else:
            lines.append(part)
    return "\n".join(lines)


def evaluation_line(event: Evaluated) -> str:
    """The validation loss, and whether it is the best so far."""
    best = ", the best so far" if event.best else ""
    after = counted(event.update, "update")
    return f"validation after {after}: loss {event.loss:.4f}, perplexity {event.perplexity:.4g}{best}"


def notice_line(event: Notice) -> str:
    """The message and its update; the code is for programs.

    >>> notice_line(Notice(25, "spike", "loss 9, far above its running mean of 2"))
    'Warning at update 25: loss 9, far above its running mean of 2'
    """
    if event.code == "note":
        return f"Note: {event.message}"
    kind = "Note" if event.code in _EXPECTED else "Warning"
    return f"{kind} at update {event.update}: {event.message}"


class LiveDisplay:
    """A progress bar with the numbers of the last update below it, drawn by rich."""

    def __init__(self, updates: int, done: int) -> None:
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._console: Console = console(stderr=True)
        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=self._console,
            expand=True,
        )
        self._training: TaskID = self._progress.add_task("training", total=updates, completed=done)
        self.parts: list[str] = []
        self._other: tuple[str, TaskID] | None = None
        self._screen: Live = Live(
            console=self._console, get_renderable=self._picture, refresh_per_second=5, transient=True
        )

    def start(self) -> None:
        """Take over the bottom of the terminal."""
        self._screen.start()

    def stop(self) -> None:
        """Remove the bar and give the terminal back."""
        self._screen.stop()

    def set_length(self, updates: int) -> None:
        """Show progress out of ``updates``."""
        self._progress.update(self._training, total=updates)

    def update(self, done: int, parts: list[str]) -> None:
        """Show `done` updates and the numbers of the last one; any other step has ended."""
        self._remove_other()
        self._progress.update(self._training, completed=done)
        self.parts = parts

    def tick(self, event: Tick) -> None:
        """Show a second bar for a long step, and remove it when the step is done."""
        if self._other is None or self._other[0] != event.what:
            self._remove_other()
            self._other = (event.what, self._progress.add_task(event.what, total=event.total))
        self._progress.update(self._other[1], completed=event.done)
        if event.done >= event.total:
            self._remove_other()

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(without_controls(text))

    def _remove_other(self) -> None:
        if self._other is not None:
            self._progress.remove_task(self._other[1])
            self._other = None

    def _picture(self) -> RenderableType:
        """At 60 columns the numbers need two lines; cutting them off would lose the time left."""
        from rich.console import Group
        from rich.text import Text

        return Group(self._progress, Text(wrapped(self.parts, self._console.width)))
