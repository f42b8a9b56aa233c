"""The timings and the choice, as a run records them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field

from mlxsched.model.fast import candidates
from mlxsched.model.fast.candidates import Paths
from mlxsched.model.fast.forward_path import ForwardPath

PATHS: dict[str, Callable[[ForwardPath], Paths]] = {
    "attention": candidates.attentions,
    "gated delta": candidates.deltas,
    "cross-entropy": candidates.cross_entropies,
    "step": candidates.steps,
}
THREADS, BATCHING = "threads", "batching"
PADDED, PACKED = "padded", "packed"


@dataclass(frozen=True)
class Case:
    """One candidate of a ``kind``: seconds of its part of a step, and its speed relative to the first of its kind.

    Both are None if no time was left; ``gain`` is also None if too little was left. ``refused`` says why a faster one
    was not chosen.
    """

    kind: str
    name: str
    seconds: float | None
    gain: float | None
    chosen: bool
    refused: str = ""

    @property
    def is_change(self) -> bool:
        """Whether it was chosen instead of the default."""
        return self.chosen and self.gain is not None and self.gain > 1


@dataclass
class Tuning:
    """The ``chosen`` name of each kind, the ``cases`` on which the choice is based, and the ``seconds`` that timing
    took.

    ``note`` says why nothing was timed.
    """

    chosen: dict[str, str] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)
    seconds: float = 0.0
    note: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether there was time for every candidate, so that the choice is worth storing."""
        return bool(self.cases) and all(case.gain is not None for case in self.cases)

    def to_dict(self) -> dict[str, object]:
        """Plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, object]) -> Tuning:
        """Read the choice in what `to_dict` returned; what cannot be read is left out.

        >>> Tuning.from_dict({"chosen": {"attention": "whole", "step": 3}, "cases": None}).chosen
        {'attention': 'whole'}
        """
        chosen = raw.get("chosen")
        pairs = chosen.items() if isinstance(chosen, Mapping) else ()
        return cls({str(kind): name for kind, name in pairs if isinstance(name, str)})

    @property
    def threads(self) -> int | None:
        """The number of OpenBLAS threads; None for no change."""
        text = self.chosen.get(THREADS, "")
        return int(text) if text.isascii() and text.isdecimal() and 0 < int(text) < 1000 else None

    def applied_to(self, path: ForwardPath) -> ForwardPath:
        """``path`` with the choice applied; names unknown to this version are skipped."""
        for kind, paths in PATHS.items():
            path = paths(path).get(self.chosen.get(kind, ""), path)
        return path
