"""Rules for the machine: interrupted runs, updates that slowed down, growing memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mlxsched.analysis.diagnosis.finding import Diagnosis, confidence
from mlxsched.analysis.diagnosis.history import History
from mlxsched.analysis.diagnosis.robust import falls, ratio
from mlxsched.text import counted

_FEWEST = 40  # updates; the first ones compile and vary
_SLOWER = 0.6  # of the former throughput: less may be another program's work
_FALLING = 0.8  # of the pairs of fifths of the run; a loaded machine varies
_GREW = 1.1  # peak memory at the end over that in the middle


def interrupted(history: History) -> Iterator[Diagnosis]:
    """The run ended before its plan, and before its rate had decayed."""
    planned, made = history.planned, history.made
    if not made or planned is None or made >= planned or history.status in ("running", "finished"):
        return
    last = ratio(history.train["lr"][-1], history.peak)
    if not last > 0.1:
        return
    decays = history.schedule_steps is not None or not history.is_run  # others' logs don't say
    commands = f"mlxsched resume {history.target}"
    if history.saved:
        commands += f", or end it properly: mlxsched cooldown {history.target}"
    else:
        commands += " (starts from the beginning: no update was saved)"
    yield Diagnosis(
        "interrupted",
        "warning",
        f"the run ended after {made:,} of {counted(planned, 'update')}, at {last:.0%} of its highest rate",
        why="the decay, in which the loss falls considerably, is missing"
        if decays
        else "the rest of its updates, and a decay that would lower the loss further, are missing",
        fix=commands if history.is_run else "Resume it",
        update=made,
    )


def slowing_down(history: History) -> Iterator[Diagnosis]:
    """The throughput fell during the run."""
    speed = history.train["tokens_per_second"]
    speed = speed[np.isfinite(speed)]
    if len(speed) < _FEWEST:
        return
    fifths = [float(np.median(part)) for part in np.array_split(speed, 5)]
    share = ratio(fifths[4], max(fifths[:4]))
    if not share < _SLOWER or falls(np.array(fifths)) < _FALLING:
        return
    yield Diagnosis(
        "slowing_down",
        "note",
        f"the throughput of the last updates was {share:.0%} of that of the fastest ones",
        why="the machine is hot, swaps, or runs other programs",
        fix="Check its temperature, free memory and other programs; lower --memory if it swaps",
        update=int(history.train["update"][-len(speed) // 5]),
        confidence=confidence(1 - share, 1 - _SLOWER, 0.6),
    )


def memory_growth(history: History) -> Iterator[Diagnosis]:
    """Peak memory rose throughout the second half of the run."""
    memory = history.train["peak_memory_gb"]
    memory = memory[np.isfinite(memory)]
    if len(memory) < _FEWEST:
        return
    later = memory[len(memory) // 2 :]
    grew, rises = ratio(later[-1], later[0]), float((np.diff(later) > 0).mean())
    if not grew > _GREW or not rises > 0.3:
        return
    yield Diagnosis(
        "memory_growth",
        "warning",
        f"peak memory rose from {later[0]:.2f} to {later[-1]:.2f} GB in the second half of the run, "
        f"in {rises:.0%} of its updates",
        why="something keeps arrays alive from update to update",
        fix="Look for a callback that keeps losses or gradients as arrays; `loss.item()` converts one to a number",
        update=int(history.train["update"][len(history.train) // 2]),
        confidence=confidence(grew, _GREW, 1.3),
    )
