"""Findings that are already certain during a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from mlxsched.analysis.diagnosis import diagnose
from mlxsched.analysis.diagnosis.finding import Diagnosis
from mlxsched.analysis.diagnosis.history import History
from mlxsched.runs.events import Evaluated

CODES = ("diverged", "overfitting", "too_slow")
"""What the rest of a run does not undo. Noise at a high rate ends with the decay, and spikes are reported as they come."""

SURE = 0.8
"""The minimum confidence, at which no healthy run of benchmarks/live_diagnosis.py had a finding."""


def certain(history: History) -> list[Diagnosis]:
    """The findings of `CODES` that were certain at the last two evaluations of an unfinished run.

    A pure function of the records, so a resumed run reports the same as an uninterrupted one.
    """
    seen = [place for place, event in enumerate(history.events) if isinstance(event, Evaluated)]
    if len(seen) < 2:
        return []
    now = list(_sure(history))
    before = {one.code for one in _sure(replace(history, events=history.events[: seen[-2] + 1]))}
    return [one for one in now if one.code in before]


def _sure(history: History) -> Iterator[Diagnosis]:
    for finding in diagnose(history):
        if finding.code in CODES and finding.confidence >= SURE:
            yield finding
