"""What ``--average`` can be: ``last:5``, ``cycles``, ``ema:0.99``, ``merge:1-sqrt:5``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["last", "cycles", "ema", "merge"]

FORMS = "last:K, cycles, ema:DECAY, merge:SHAPE:K"
SHAPES = ("linear", "cosine", "1-sqrt", "1-square", "exponential", "mirror-cosine")
"""Decays that a merge can stand for: the tails of ``wsd`` that reach 0."""
MOST_POINTS = 50
"""Points that an average may have: each is a copy of the trained parameters, in memory and in every checkpoint."""
MERGED = 5
"""Points of ``merge`` where their number is left out."""


@dataclass(frozen=True)
class Average:
    """How the adapters of a run are averaged.

    Args:
        kind: ``last``, the mean of the last points; ``cycles``, the mean at the ends of the schedule's cycles;
            ``ema``, an exponential moving average over all updates; ``merge``, the weighted mean of the last points
            that stands for a decay of the rate.
        points: how many points are kept; 0 for ``ema``, which needs none.
        decay: of ``ema``: the share of the old average in the new one.
        shape: of ``merge``: the decay that it stands for.
        products: average A @ B in place of A and B.
    """

    kind: Kind
    points: int = 0
    decay: float = 0.0
    shape: str = ""
    products: bool = False

    def __str__(self) -> str:
        """The form that `parse_average` reads.

        >>> str(parse_average("merge")), str(parse_average("ema"))
        ('merge:linear:5', 'ema:0.99')
        """
        parts = {
            "last": [str(self.points)],
            "cycles": [],
            "ema": [f"{self.decay:g}"],
            "merge": [self.shape, str(self.points)],
        }[self.kind]
        return ":".join([self.kind, *parts, *(["products"] if self.products else [])])


def parse_average(text: str) -> Average:
    """The average that `text` asks for.

    Raises:
        ValueError: it is none of the forms, or a number is out of its range.

    >>> parse_average("last:5")
    Average(kind='last', points=5, decay=0.0, shape='', products=False)
    >>> parse_average("merge:linear:8:products").shape
    'linear'
    """
    kind, *rest = text.strip().lower().split(":")
    products = rest[-1:] == ["products"]
    rest = rest[:-1] if products else rest
    if kind == "last" and len(rest) == 1:
        return Average("last", _points(rest[0]), products=products)
    if kind == "cycles" and not rest:
        return Average("cycles", MOST_POINTS, products=products)
    if kind == "ema" and len(rest) <= 1 and not products:
        return Average("ema", decay=_decay(rest[0] if rest else "0.99"))
    if kind == "merge" and len(rest) <= 2:
        shapes = [part for part in rest if not part.isdigit()] or ["linear"]
        counts = [part for part in rest if part.isdigit()] or [str(MERGED)]
        if len(shapes) == len(counts) == 1 and shapes[0] in SHAPES:
            return Average("merge", _points(counts[0]), shape=shapes[0], products=products)
        raise ValueError(f"must be merge:SHAPE:K, with a shape of {', '.join(SHAPES)}")
    raise ValueError(f"must be one of {FORMS}; :products may follow last, cycles and merge")


def _points(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 2 <= int(text) <= MOST_POINTS:
        raise ValueError(f"must average 2 to {MOST_POINTS} points, as in last:5")
    return int(text)


def _decay(text: str) -> float:
    try:
        decay = float(text)
    except ValueError:
        decay = 0.0
    if not 0 < decay < 1:
        raise ValueError("must have a decay between 0 and 1, as in ema:0.99")
    return decay
