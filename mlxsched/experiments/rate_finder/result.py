"""The result of a search as plain data, which is printed, stored and read back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlxsched.experiments.rate_finder.range_test import RangeTest


@dataclass(frozen=True)
class Candidate:
    """A peak tried in a branch of ``updates``, and the held-out loss after it."""

    peak: float
    updates: int
    loss: float


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Args:
        suggestion: the peak to train with; None if no branch learned anything.
        low: the lower end of an interval that should contain the best peak; None without a suggestion.
        high: its upper end.
        conclusive: whether the suggestion is reliable.
        reason: one sentence: why, or how to resolve that.
        candidates: the branches in the order in which they were trained.
        test: the range test.
        marks: rates by the rule that gives them: the prior, the best branch, and rules that other tools use.
        cost_updates: the compute spent, in updates of the run.
        updates: the length of the run.
        seconds: the time that it took.
        explanation: why the suggestion is not the best peak of the branches; empty if it is, or if the reason is not known.
    """

    suggestion: float | None
    low: float | None
    high: float | None
    conclusive: bool
    reason: str
    candidates: tuple[Candidate, ...]
    test: RangeTest
    marks: dict[str, float] = field(default_factory=dict)
    cost_updates: float = 0.0
    updates: int = 0
    seconds: float = 0.0
    explanation: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Found:
        """The inverse of `to_dict`; raises KeyError, TypeError or ValueError for anything else."""
        test = values["test"]
        return Found(
            **{
                **values,
                "candidates": tuple(Candidate(**one) for one in values["candidates"]),
                "test": RangeTest(tuple(test["rates"]), tuple(test["losses"]), test["broke"]),
            }
        )
