"""A tokenized data set: its splits, its fingerprint, and what became of the rows that were read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from mlxsched.data.options import SPLITS
from mlxsched.data.problems import Problems
from mlxsched.data.record import Record
from mlxsched.data.rows import Rows

PLACES = 5  # named for each kind of row that was not used as it is


@dataclass
class Counts:
    """What became of the rows of a split.

    Args:
        read: rows in the files.
        bad: rows that can't be used.
        dropped: rows without a target within the maximum length.
        truncated: rows that are used, but cut.
        lost_turns: assistant turns of used rows that are not targets, because the template rewrites them.
        open_ended: rows whose last target does not end a turn.
        ignored_tools: rows whose ``tools`` the chat template leaves out.
        beginnings: training rows that are the beginning of a longer one (`joining`).
        repeated: tokens of those rows.
        related: held-out rows that are the beginning of a training row, or begin with one (`joining`).
        places: ``file:line`` of the first rows of each kind, by the name of the count.
    """

    read: int = 0
    bad: int = 0
    dropped: int = 0
    truncated: int = 0
    lost_turns: int = 0
    open_ended: int = 0
    ignored_tools: int = 0
    beginnings: int = 0
    repeated: int = 0
    related: int = 0
    places: dict[str, list[str]] = field(default_factory=dict)

    @property
    def used(self) -> int:
        """Rows that are trained on or evaluated."""
        return self.read - self.bad - self.dropped

    def add(self, kind: str, where: str, number: int = 1) -> None:
        """Add ``number`` to the count ``kind`` for the row at ``where``."""
        if number:
            setattr(self, kind, getattr(self, kind) + number)
            places = self.places.setdefault(kind, [])
            if len(places) < PLACES:
                places.append(where)

    def add_all(self, kind: str, records: Iterable[Record]) -> None:
        """Count each of ``records`` as ``kind``."""
        for record in records:
            self.add(kind, record.where)

    def include(self, others: Counts) -> None:
        """Add the counts of later rows."""
        for name in COUNTED:
            setattr(self, name, getattr(self, name) + getattr(others, name))
        for kind, places in others.places.items():
            ours = self.places.setdefault(kind, [])
            ours += places[: PLACES - len(ours)]


COUNTED = tuple(each.name for each in fields(Counts) if each.name != "places")


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tokenized splits.

    Args:
        splits: rows of train, valid and test; empty splits are left out.
        fingerprint: a hash of the tokens and targets, wherever they came from.
        notes: what a user should know, a clause each.
        counts: by split, also for splits without usable rows.
        problems: the rows that can't be used.
        from_cache: whether the rows were tokenized by an earlier run.
    """

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
        """Rows to evaluate on during training."""
        return self.splits.get("valid")

    @property
    def test(self) -> Rows | None:
        """Rows to evaluate on at the end."""
        return self.splits.get("test")


def fingerprint_of(splits: Mapping[str, Rows]) -> str:
    """SHA-256 over the rows of all splits."""
    digests = {split: splits[split].digest() for split in SPLITS if split in splits}
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
