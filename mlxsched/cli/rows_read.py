"""Progress of reading and tokenizing rows."""

from __future__ import annotations

import time

from mlxsched.cli.output import note
from mlxsched.text import about

_SECONDS = 5.0  # between two lines; small data sets are read without any


class RowsRead:
    """Says on stderr every few seconds how many rows were tokenized, and how long the others will take."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        # Time and share at the first call. The time before it went into loading the model, not into rows.
        self._first: tuple[float, float] | None = None

    def __call__(self, rows: int, share: float | None) -> None:
        now = time.monotonic()
        began, at = self._first = self._first or (now, share or 0.0)
        if now - self._said < _SECONDS:
            return
        self._said = now
        read = f", {share:.0%}" if share else ""
        left = f", {about((now - began) * (1 - share) / (share - at))} left" if share and share > at else ""
        note(f"tokenized {rows:,} rows{read}{left}")
