"""`Diagnosis`: a finding about a recorded run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlxsched.analysis.findings import Finding


@dataclass(frozen=True)
class Diagnosis(Finding):
    """What is wrong with a run, the evidence, and the confidence.

    ``confidence`` is between 0.5, at the threshold of the rule, and 1.
    """

    update: int = 0
    confidence: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """The keys of ``mlxsched diagnose --json``."""
        keys = ("code", "severity", "update", "evidence", "why", "fix", "confidence")
        return {key: getattr(self, key) for key in keys}


def confidence(value: float, threshold: float, sure: float) -> float:
    """The confidence of a rule: 0.5 at the threshold, 0.99 from ``sure`` on, and linear in between.

    >>> confidence(2.0, 2.0, 4.0), confidence(3.0, 2.0, 4.0), confidence(9.0, 2.0, 4.0)
    (0.5, 0.745, 0.99)
    """
    share = (value - threshold) / (sure - threshold)
    return round(0.5 + 0.49 * min(max(share, 0.0), 1.0), 3)
