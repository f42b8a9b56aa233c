"""The verdict on a run in a few lines: the same in the terminal, in the report and in `mlxsched diagnose`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlxsched.analysis.diagnosis import SHORTEST, is_healthy
from mlxsched.analysis.diagnosis.finding import Diagnosis
from mlxsched.analysis.diagnosis.histories import info_history
from mlxsched.analysis.diagnosis.history import History
from mlxsched.analysis.diagnosis.stability import ABOVE_START
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


def failure(history: History, findings: Sequence[Diagnosis]) -> str:
    """That training made the model worse, or did not improve it, as a clause with the fix; empty if neither is known.

    ``findings`` are those of `diagnose`: one of them has a fix of its own.

    The results of a running run are not final. If nothing was evaluated after update 0, that update has the best adapter
    in any case. The measurements before and after count only for a finished run: those of a run that is being extended are
    from its previous end.
    """
    finished = history.status == "finished"
    if history.status == "running":
        return ""
    if untrained(history.best_update) and (finished or (history.evaluations["update"] > 0).any()):
        return _nothing_kept(history, findings)
    worse = _got_worse(history.results) if finished else ""
    return f"training made the model worse: {worse}" if worse else ""


def untrained(best_update: int | None) -> bool:
    """Whether the adapter that the run keeps, its best, is the one it began with."""
    return best_update == 0


def _nothing_kept(history: History, findings: Sequence[Diagnosis]) -> str:
    kept, losses = "the adapter is that of update 0", history.seen[1]
    if not len(history.losses) or len(losses) < 2 or not losses[-1] > ABOVE_START * losses[0]:
        return f"training did not improve the model: {kept}"
    worse = f"training made the model worse: its validation loss rose from {losses[0]:.4f} to {losses[-1]:.4f}, and {kept}"
    # Where the training loss fell, the rate is not what is wrong; and a finding has a fix of its own.
    learned = history.end < history.train_start or not is_healthy(findings)
    return worse if learned else f"{worse}. Train again with --learning-rate {history.lower_rate(10)}"


def failure_of(info: RunInfo, status: str, records: EventColumns, findings: Sequence[Diagnosis]) -> str:
    """`failure` of one of our runs, given its current ``status``."""
    return failure(info_history(info, records, status), findings)


def headline_of(
    info: RunInfo, status: str, findings: Sequence[Diagnosis], made: int, records: EventColumns
) -> str:
    """`headline` of one of our runs, given its current ``status``."""
    head = headline(findings, made, failure_of(info, status, records, findings))
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
