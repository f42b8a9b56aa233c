"""Progress of reading and tokenizing rows."""

from __future__ import annotations

import time

from mlxsched.cli.output import note
from mlxsched.text import about

_SECONDS = 5.0  # between two lines; small data sets are read without any


class RowsRead:
    """Says on stderr every few seconds how many rows were tokenized, and how long the others will take."""

    def __init__(self) -> None:
        self._started = self._said = time.monotonic()

    def __call__(self, rows: int, share: float | None) -> None:
        now = time.monotonic()
        if now - self._said < _SECONDS:
            return
        self._said = now
        left = "" if not share else f", {share:.0%}, {about((now - self._started) * (1 / share - 1))} left"
        note(f"tokenized {rows:,} rows{left}")
