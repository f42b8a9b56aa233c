"""Diagnoses what went wrong in a run, from its records.

`diagnose` applies one rule after the other. Each rule looks for one symptom in the losses, rates, evaluations and times of
a `History`, and reports nothing if there is none. The thresholds are rules of thumb; benchmarks/diagnosis.py evaluates them on
labelled runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mlxsched.analysis.diagnosis import fit, host, stability
from mlxsched.analysis.diagnosis.finding import Diagnosis
from mlxsched.analysis.diagnosis.history import UNKNOWN, History

__all__ = ["RULES", "SHORTEST", "UNKNOWN", "Diagnosis", "History", "diagnose", "is_healthy"]

SHORTEST = 20
"""The number of updates that most rules need."""

Rule = Callable[[History], Iterator[Diagnosis]]

RULES: tuple[Rule, ...] = (
    stability.non_finite,
    stability.diverged,
    stability.early_explosion,
    stability.spike,
    stability.oscillating,
    fit.too_slow,
    fit.early_plateau,
    fit.overfitting,
    fit.underfitting,
    fit.slow_decay,
    host.interrupted,
    fit.still_improving,
    host.slowing_down,
    host.memory_growth,
)

# A run that shows the first symptom shows the others as its consequences.
_EXPLAINS = {
    "non_finite": (
        "diverged",
        "early_explosion",
        "spike",
        "oscillating",
        "too_slow",
        "early_plateau",
        "interrupted",
    ),
    "diverged": ("interrupted", "spike", "oscillating", "early_plateau", "overfitting"),
    "early_explosion": ("diverged", "spike", "still_improving", "overfitting"),
    "oscillating": ("overfitting",),
    "underfitting": ("too_slow", "early_plateau"),
    "too_slow": ("still_improving", "early_plateau"),
    "slow_decay": ("still_improving",),
    "interrupted": ("still_improving",),
}


def diagnose(history: History) -> list[Diagnosis]:
    """All findings about a run, the most serious and most certain first; none for a healthy run."""
    found = [finding for rule in RULES for finding in rule(history)]
    explained = {code for finding in found for code in _EXPLAINS.get(finding.code, ())}
    explained |= _rivals(found, history)
    left = [finding for finding in found if finding.code not in explained]
    order = {"error": 0, "warning": 1, "note": 2}
    return sorted(left, key=lambda finding: (order[finding.severity], -finding.confidence))


def _rivals(found: list[Diagnosis], history: History) -> set[str]:
    """A plateau, or a spike after the lowest validation loss, explains why that loss rose, unless the rows are memorized.

    In that case the training loss is tiny and constant, and any noise looks like a spike.
    """
    at = {finding.code: finding.update for finding in found}
    if "overfitting" not in at:
        return set()
    rivals = at.keys() & {"early_plateau"}
    if at.get("spike", -1) >= at["overfitting"]:
        rivals.add("spike")
    return rivals if history.memorized or not rivals else {"overfitting"}


def is_healthy(findings: Iterable[Diagnosis]) -> bool:
    """Whether nothing is wrong; notes do not count."""
    return all(finding.severity == "note" for finding in findings)
