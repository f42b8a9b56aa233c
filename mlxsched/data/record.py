"""What every source of rows yields: `Record`, and the `Source` protocol itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem


class Record(NamedTuple):
    """One record as read, before it becomes a row.

    ``data`` is the JSON object, or the reason why there is none; ``excerpt`` is how the record begins, for messages.
    """

    split: str
    file: str
    line: int
    data: Mapping[str, Any] | RowProblem
    excerpt: str
    features: Features

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"


class Source(Protocol):
    """Something that yields records, any number of times."""

    name: str
    notes: list[str]

    def identity(self) -> str | None:
        """A hash of the content and of the file names; None if it can't be known without reading all of it."""

    def records(self) -> Iterator[Record]:
        """All records, in order."""

    def share_read(self) -> float | None:
        """How much of the source `records` has read, from 0 to 1; None if unknown."""
