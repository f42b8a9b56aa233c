"""Rows in columns: one flat buffer of tokens for all rows, and where each row begins.

A Python list of a million rows of tokens takes gigabytes of small objects; these columns take five bytes a
token, in memory or mapped from the cache's files.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

COLUMNS: dict[str, np.dtype[Any]] = {
    "tokens": np.dtype("<i4"),
    "targets": np.dtype("?"),
    "ends": np.dtype("<i8"),
    "prompt_lengths": np.dtype("<i4"),
    "answers": np.dtype("u1"),
    "answer_ends": np.dtype("<i8"),
}
NO_PROMPT = -1
Indices = NDArray[np.int64]  # [n]: numbers of rows within a split, from 0


class Row(NamedTuple):
    """One example: ``targets[i]`` says whether ``tokens[i]`` is scored when predicted from ``tokens[:i]``."""

    tokens: NDArray[np.int32]
    targets: NDArray[np.bool_]


class Example(NamedTuple):
    """What a model is asked by generation: the prompt's tokens, and the text that should follow."""

    prompt: list[int]
    answer: str


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of a split, read-only; index it for a `Row`."""

    columns: Mapping[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.columns["ends"])

    def __getitem__(self, index: int) -> Row:
        start, stop = self.offsets[index], self.offsets[index + 1]
        return Row(self.columns["tokens"][start:stop], self.columns["targets"][start:stop])

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row begins in the flat buffer; one more entry than rows."""
        return np.concatenate([np.zeros(1, np.int64), self.columns["ends"]])

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row."""
        return np.diff(self.offsets).astype(np.int32)

    @cached_property
    def target_counts(self) -> NDArray[np.int32]:
        """Targets of each row."""
        if not len(self):
            return np.zeros(0, np.int32)
        return np.add.reduceat(self.columns["targets"], self.offsets[:-1], dtype=np.int32)

    def examples(self) -> list[Example] | None:
        """Prompt and expected answer of each row; None when the format has no prompt (text).

        Rows whose prompt does not fit into the maximum length are left out: they can't be asked.
        """
        asked = np.flatnonzero(self.columns["prompt_lengths"] != NO_PROMPT)
        if not len(asked):
            return None
        return [self._example(int(index)) for index in asked]

    def _example(self, index: int) -> Example:
        ends = self.columns["answer_ends"]
        start = int(ends[index - 1]) if index else 0
        answer = self.columns["answers"][start : int(ends[index])].tobytes().decode("utf-8")
        prompt = self[index].tokens[: int(self.columns["prompt_lengths"][index])]
        return Example(prompt.tolist(), answer)

    def row_hashes(self) -> NDArray[np.uint64]:
        """A 64-bit hash of each row's tokens and targets: equal rows have equal hashes."""
        hashes = np.empty(len(self), np.uint64)
        for index, row in enumerate(self):
            digest = hashlib.blake2b(row.tokens.tobytes(), digest_size=8, salt=b"rows")
            digest.update(row.targets.tobytes())
            hashes[index] = int.from_bytes(digest.digest(), "little")
        return hashes

    def digest(self) -> str:
        """SHA-256 over all columns: what the rows are, wherever they came from."""
        total = hashlib.sha256()
        for name in COLUMNS:
            column = np.ascontiguousarray(self.columns[name])
            total.update(f"{name} {column.nbytes} ".encode())
            total.update(column.view(np.uint8).data)
        return total.hexdigest()


class RowsWriter:
    """Appends rows to one open binary file a column (memory or disk): nothing is held twice."""

    def __init__(self, files: Mapping[str, BinaryIO]) -> None:
        self._files = files
        self._tokens = 0
        self._answer_bytes = 0
        self.count = 0

    def add(
        self, tokens: NDArray[np.int32], targets: NDArray[np.bool_], prompt_length: int, answer: str | None
    ) -> None:
        """Append one row; ``prompt_length`` is `NO_PROMPT` when the row can't be asked."""
        text = (answer or "").encode("utf-8")
        self._tokens += len(tokens)
        self._answer_bytes += len(text)
        self.count += 1
        values = {
            "tokens": tokens,
            "targets": targets,
            "ends": self._tokens,
            "prompt_lengths": prompt_length,
            "answers": np.frombuffer(text, np.uint8),
            "answer_ends": self._answer_bytes,
        }
        for name, dtype in COLUMNS.items():
            self._files[name].write(np.asarray(values[name], dtype).tobytes())


def from_buffers(buffers: Mapping[str, Any]) -> Rows:
    """Rows over what a `RowsWriter` wrote, without a copy."""
    columns = {name: np.frombuffer(buffers[name], dtype) for name, dtype in COLUMNS.items()}
    for column in columns.values():
        column.setflags(write=False)
    return Rows(columns)


def rows_in_memory(rows: Iterable[tuple[NDArray[np.int32], NDArray[np.bool_]]]) -> Rows:
    """Rows of these tokens and targets, that can't be asked.

    >>> rows_in_memory([(np.array([5, 6, 7], np.int32), np.array([False, True, True]))])[0].tokens
    array([5, 6, 7], dtype=int32)
    """
    buffers = {name: io.BytesIO() for name in COLUMNS}
    writer = RowsWriter(buffers)
    for tokens, targets in rows:
        writer.add(tokens, targets, NO_PROMPT, None)
    return from_buffers({name: buffer.getvalue() for name, buffer in buffers.items()})
