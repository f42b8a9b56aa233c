"""What every source of rows yields: `Record`, and the `Source` protocol itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem
from mlxsched.data.sources.jsonl import parse


class Record(NamedTuple):
    """One record as read, before it becomes a row.

    ``data`` is the JSON object, its bytes, or the reason why there is none. ``beginning`` is how the record begins, where
    ``data`` is not bytes.
    """

    split: str
    file: str
    line: int
    data: Mapping[str, Any] | bytes | RowProblem
    features: Features
    beginning: str = ""

    @property
    def where(self) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line}"

    @property
    def excerpt(self) -> str:
        """How the record begins, for messages."""
        data = self.data
        return data[:200].decode("utf-8", "replace") if isinstance(data, bytes) else self.beginning

    def parsed(self) -> Mapping[str, Any]:
        """The JSON object; raises `RowProblem` if there is none."""
        if isinstance(self.data, RowProblem):
            raise self.data
        return parse(self.data) if isinstance(self.data, bytes) else self.data

    @property
    def is_json(self) -> bool:
        """Whether there is a JSON object."""
        try:
            self.parsed()
        except RowProblem:
            return False
        return True


class Source(Protocol):
    """Something that yields records, any number of times."""

    name: str
    notes: list[str]

    def identity(self) -> str | None:
        """A hash of the content and of the file names; None if it can't be known without reading all of it."""

    def records(self) -> Iterator[Record]:
        """All records, in order."""

    def first_records(self) -> list[Record]:
        """The first few records of each file; none if they would have to be downloaded."""

    def share_read(self) -> float | None:
        """How much of the source `records` has read, from 0 to 1; None if unknown."""
