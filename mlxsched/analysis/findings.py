"""`Finding`: the one form in which every check, warning and diagnosis states its result."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something worth telling the user, with the evidence for it and the fix.

    Args:
        code: a stable identifier, such as ``"zero_updates"``; scripts match on it.
        severity: ``"error"`` if the result would be useless, ``"warning"`` if it would be worse than it could be,
            ``"note"`` if the user should know and need not act.
        evidence: what was seen, with its values; a clause without a full stop.
        where: the place, such as ``"train.jsonl:12"``, ``"update 300"`` or ``"warmup"``; may be empty.
        why: why it matters; may be empty.
        fix: what to do, as an imperative sentence without a full stop, or a command; may be empty.

    >>> print(Finding("few_rows", "warning", "the data has 3 rows", where="train.jsonl", fix="Add rows"))
    train.jsonl: the data has 3 rows. Add rows
    """

    code: str
    severity: Severity
    evidence: str
    where: str = ""
    why: str = ""
    fix: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return ". ".join(part for part in (f"{place}{self.evidence}", self.why, self.fix) if part)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        return f"<p><b>{escape(self.severity)}: {escape(self.code)}</b> {escape(str(self))}</p>"
