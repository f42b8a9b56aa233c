"""The verdict on a run in a few lines: the same in the terminal, in the report and in `mlxsched diagnose`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlxsched.analysis.diagnosis import SHORTEST, is_healthy
from mlxsched.analysis.diagnosis.finding import Diagnosis
from mlxsched.runs.info import RunInfo, measures

HEALTHY = "healthy"
_MOST = 2  # findings in a verdict
_LOSSES = {"loss": "validation loss", "test_loss": "test loss"}


def headline(
    findings: Sequence[Diagnosis],
    made: int,
    *,
    results: Mapping[str, object] | None = None,
    best_update: object = None,
) -> str:
    """How a run of ``made`` updates went, as a clause; empty if the findings say it.

    Args:
        findings: of `diagnose`.
        made: updates made.
        results: what was measured before and after the run.
        best_update: the update with the best adapter; 0 if training never improved the model.

    >>> headline([], 8), headline([], 40), headline([], 40, best_update=0)[:33]
    ('too few updates to judge: 8, and most checks need 20', 'healthy', 'training did not improve the mode')
    """
    if best_update == 0:
        return "training did not improve the model: the adapter is that of update 0"
    worse = _got_worse(results or {})
    if worse:
        return f"training made the model worse: {worse}"
    if not is_healthy(findings):
        return ""
    return (
        HEALTHY if made >= SHORTEST else f"too few updates to judge: {made}, and most checks need {SHORTEST}"
    )


def headline_of(info: RunInfo, status: str, findings: Sequence[Diagnosis], made: int) -> str:
    """`headline` of one of our runs with the present ``status``; what a running one has measured is not final."""
    if status != "running":
        best = (info.best or {}).get("update")
        return headline(findings, made, results=info.results, best_update=best)
    head = headline(findings, made)
    return f"{head} so far" if head == HEALTHY else head


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
