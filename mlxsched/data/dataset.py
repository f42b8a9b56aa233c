"""A tokenized data set: its splits, what they are known by, and what a user must know about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mlxsched.data.options import SPLITS
from mlxsched.data.problems import Problems
from mlxsched.data.rows import Rows


@dataclass
class Counts:
    """What became of the rows of a split.

    ``read``: rows that are there.  ``bad``: those that can't be used.  ``dropped``: those without a target
    within the maximum length.  ``truncated``: those that are used, but cut.  ``lost_turns``: assistant turns
    of used rows that are not targets, because the chat template rewrites them.  ``open_ended``: rows whose
    last target does not end a turn.
    """

    read: int = 0
    bad: int = 0
    dropped: int = 0
    truncated: int = 0
    lost_turns: int = 0
    open_ended: int = 0

    @property
    def used(self) -> int:
        """Rows that are trained on or evaluated."""
        return self.read - self.bad - self.dropped


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tokenized splits; ``fingerprint`` is a hash of their tokens and targets, wherever they came from."""

    splits: Mapping[str, Rows]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    counts: Mapping[str, Counts] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    from_cache: bool = False

    @property
    def train(self) -> Rows | None:
        """Rows to train on."""
        return self.splits.get("train")

    @property
    def valid(self) -> Rows | None:
        """Rows to evaluate on while training."""
        return self.splits.get("valid")

    @property
    def test(self) -> Rows | None:
        """Rows to evaluate on at the end."""
        return self.splits.get("test")


def fingerprint_of(splits: Mapping[str, Rows]) -> str:
    """SHA-256 over the rows of all splits."""
    digests = {split: splits[split].digest() for split in SPLITS if split in splits}
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
