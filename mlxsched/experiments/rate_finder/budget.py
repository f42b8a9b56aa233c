"""The budget of a search."""

from __future__ import annotations

import re
from dataclasses import dataclass

from mlxsched.config.units import parse_duration
from mlxsched.errors import UsageError

LEAST = 60  # updates, with branches of 4 and 8: shorter ones cannot rank rates
USUAL = 100  # updates; benchmarks/rate_finder.py measures what they buy


@dataclass(frozen=True)
class Budget:
    """Either a number of updates or a time in seconds."""

    updates: float = 0.0
    seconds: float | None = None

    def in_updates(self, seconds_per_update: float) -> float:
        """The budget in updates of ``seconds_per_update``; raises UsageError if they are too few."""
        updates = self.updates if self.seconds is None else self.seconds / seconds_per_update
        if updates < LEAST:
            shown = f"{updates:.0f} updates" if self.seconds is None else f"{self.seconds:g} s"
            least = "" if self.seconds is None else f", here {LEAST * seconds_per_update:.0f} s"
            raise UsageError(
                f"a budget of {shown} is too small to compare rates. Give at least {LEAST} updates{least}."
            )
        return updates


def parse_budget(text: str, run: int) -> Budget:
    """A share of a ``run`` in updates (``5%``), a time (``3m``), or updates (``100`` or ``100 updates``).

    >>> parse_budget("20%", 500).updates, parse_budget("3m", 500).seconds, parse_budget("100 updates", 500).updates
    (100.0, 180.0, 100.0)
    """
    text = text.strip()
    if found := re.fullmatch(r"(\d{1,9}(?:\.\d+)?) ?%", text):
        return Budget(updates=float(found[1]) / 100 * run)
    if found := re.fullmatch(r"(\d{1,9})(?: ?updates?)?", text):
        return Budget(updates=float(found[1]))
    try:
        return Budget(seconds=parse_duration(text))
    except ValueError:
        raise UsageError(
            f"--budget {text!r} is not a budget. Write a share of the run (20%), a time (3m) or updates (100)."
        ) from None


def usual_budget(run: int) -> Budget:
    """A tenth of a ``run`` in updates, but at least `USUAL`, since shorter branches rank rates badly.

    For a run shorter than that it is the run's length, but at least `LEAST`.

    >>> [usual_budget(run).updates for run in (5000, 500, 80, 20)]
    [500.0, 100, 80, 60]
    """
    return Budget(updates=max(run / 10, min(USUAL, max(run, LEAST))))
