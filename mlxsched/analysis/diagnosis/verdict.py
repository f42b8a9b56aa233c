"""The verdict on a run in a few lines: the same in the terminal, in the report and in `mlxsched diagnose`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlxsched.analysis.diagnosis import SHORTEST, is_healthy
from mlxsched.analysis.diagnosis.finding import Diagnosis
from mlxsched.runs.info import RunInfo, measures
from mlxsched.runs.recording import EventColumns

HEALTHY = "healthy"
_MOST = 2  # findings in a verdict
_LOSSES = {"loss": "validation loss", "test_loss": "test loss"}


def headline(findings: Sequence[Diagnosis], made: int, failure: str = "") -> str:
    """How a run of ``made`` updates went, as a clause: its `failure`, if any; empty if the findings say it.

    >>> headline([], 8), headline([], 40), headline([], 40, "training made the model worse")
    ('too few updates to judge: 8, and most checks need 20', 'healthy', 'training made the model worse')
    """
    if failure:
        return failure
    if not is_healthy(findings):
        return ""
    return (
        HEALTHY if made >= SHORTEST else f"too few updates to judge: {made}, and most checks need {SHORTEST}"
    )


def failure(status: str, records: EventColumns, results: Mapping[str, object], best_update: object) -> str:
    """That training made the model worse, or did not improve it, as a clause; empty if neither is known.

    Args:
        status: of the run. The results of a running one are not final.
        records: its evaluations. If it evaluated nothing after update 0, that update has the best adapter in any case.
        results: the measurements before and after it. They count only for a finished run: those of a run that is being
            extended are from its previous end.
        best_update: the update with the best adapter, if it is known.
    """
    if status == "running":
        return ""
    if best_update == 0 and (status == "finished" or (records.evaluations["update"] > 0).any()):
        return "training did not improve the model: the adapter is that of update 0"
    worse = _got_worse(results) if status == "finished" else ""
    return f"training made the model worse: {worse}" if worse else ""


def failure_of(info: RunInfo, status: str, records: EventColumns) -> str:
    """`failure` of one of our runs, given its current ``status``."""
    return failure(status, records, info.results, (info.best or {}).get("update"))


def headline_of(
    info: RunInfo, status: str, findings: Sequence[Diagnosis], made: int, records: EventColumns
) -> str:
    """`headline` of one of our runs, given its current ``status``."""
    head = headline(findings, made, failure_of(info, status, records))
    return f"{head} so far" if status == "running" and head == HEALTHY else head


def verdict(head: str, findings: Sequence[Diagnosis]) -> list[str]:
    """One to three lines: `headline`, if there is one, and the most serious findings with their fixes."""
    lines = [*([head] if head else []), *(f"{one.evidence}. {one.fix}" for one in findings[:_MOST])]
    first, *others = [f"{line}." for line in lines]
    return [f"Verdict: {first}", *(f"{line[0].upper()}{line[1:]}" for line in others)]


def _got_worse(results: Mapping[str, object]) -> str:
    """The loss that is higher after the run than before it; empty if none is."""
    before, after = measures(results, "before"), measures(results, "after")
    worse = [name for name in _LOSSES if after.get(name, -math.inf) > before.get(name, math.inf)]
    return ", ".join(
        f"its {_LOSSES[name]} rose from {before[name]:.4f} to {after[name]:.4f}" for name in worse
    )
