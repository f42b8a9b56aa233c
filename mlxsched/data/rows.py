"""Rows in columns: one flat buffer of tokens for all rows, and where each row ends.

A Python list of a million tokenized rows takes gigabytes of small objects. These columns take five bytes a token
(an int32 and a boolean) plus 34 bytes a row, in memory or mapped from the files of the cache.
"""

from __future__ import annotations

import hashlib
import io
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]  # [n]: numbers of rows within a split, from 0

# What the rows are: part of the fingerprint.
_CONTENT: dict[str, np.dtype[Any]] = {
    "tokens": np.dtype("<i4"),  # [tokens of all rows]
    "targets": np.dtype("?"),  # [tokens of all rows]
    "ends": np.dtype("<i8"),  # [rows]: where each row ends in tokens and targets
    "prompt_lengths": np.dtype("<i4"),  # [rows]: NO_PROMPT if the model can't be asked for the answer
    "answers": np.dtype("u1"),  # [bytes of all answers], UTF-8
    "answer_ends": np.dtype("<i8"),  # [rows]
}
# Where the rows came from: moving a row within its file must not change the fingerprint.
_ORIGIN: dict[str, np.dtype[Any]] = {
    "files": np.dtype("<u2"),  # [rows]: number in Rows.file_names
    "lines": np.dtype("<i8"),  # [rows]
}
COLUMNS = {**_CONTENT, **_ORIGIN}
NO_PROMPT = -1
_BLOCK = 4096  # rows
_BLOCK_ITEMS = 2**22


class Row(NamedTuple):
    """One row: ``targets[i]`` says whether ``tokens[i]`` is scored when predicted from ``tokens[:i]``.

    In a row that several were joined into, it is how often (`mlxsched.data.joining`).
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.bool_ | np.uint16]


class Example(NamedTuple):
    """A question for the model: the tokens of the prompt, and the text that should follow."""

    prompt: list[int]
    answer: str


@dataclass(frozen=True, eq=False)
class Rows:
    """All rows of a split, read-only; index it for a `Row`.

    Args:
        columns: one array for each name of `COLUMNS`.
        file_names: the files that the rows came from; empty if unknown.
    """

    columns: Mapping[str, NDArray[Any]]
    file_names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.columns["ends"])

    def __getitem__(self, index: int) -> Row:
        start, stop = self.offsets[index], self.offsets[index + 1]
        return Row(self.columns["tokens"][start:stop], self.columns["targets"][start:stop])

    def __iter__(self) -> Iterator[Row]:
        return (self[index] for index in range(len(self)))

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each row begins in the flat buffer, ``[rows + 1]``."""
        return np.concatenate([np.zeros(1, np.int64), self.columns["ends"]])

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """Tokens of each row, ``[rows]``."""
        return np.diff(self.offsets).astype(np.int32)

    @cached_property
    def target_counts(self) -> NDArray[np.int32]:
        """Targets of each row, ``[rows]``; in joined rows, each as often as it counts."""
        counts = np.zeros(len(self), np.int32)
        for first in range(0, len(self), _BLOCK):  # reduceat converts all of its input to int32
            offsets = self.offsets[first : first + _BLOCK + 1]
            targets = self.columns["targets"][offsets[0] : offsets[-1]]
            counts[first : first + _BLOCK] = np.add.reduceat(
                targets, offsets[:-1] - offsets[0], dtype=np.int32
            )
            release(targets)
        return counts

    @property
    def scored(self) -> int:
        """Tokens that are targets, those of joined rows once."""
        return sum(int(np.count_nonzero(block)) for block in _blocks(self.columns["targets"]))

    def origin(self, index: int) -> tuple[str, int] | None:
        """File and line (from 1) of a row; None for rows that were made in memory."""
        if not self.file_names:
            return None
        return self.file_names[int(self.columns["files"][index])], int(self.columns["lines"][index])

    def place(self, index: int) -> str:
        """Where row ``index`` stands, for messages: ``file:line``, or its number for rows made in memory.

        >>> rows_in_memory([(np.array([5, 6], np.int32), np.array([False, True]))]).place(0)
        'row 1'
        """
        origin = self.origin(index)
        return f"{origin[0]}:{origin[1]}" if origin else f"row {index + 1}"

    def places(self, indices: Sequence[int] | Indices, most: int = 8) -> str:
        """Where the first ``most`` of the rows ``indices`` stand, for messages."""
        shown = ", ".join(self.place(int(index)) for index in indices[:most])
        return f"{shown}{', ...' if len(indices) > most else ''}"

    def examples(self) -> list[Example] | None:
        """Prompt and expected answer of each row; None if the format has no prompt (text).

        Rows whose prompt does not fit into the maximum length are left out.
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
        """A 64-bit hash of each row's tokens and targets, ``[rows]``; equal rows have equal hashes."""
        hashes = np.empty(len(self), np.uint64)
        for index, row in enumerate(self):
            digest = hashlib.blake2b(row.tokens.tobytes(), digest_size=8, salt=b"rows")
            digest.update(row.targets.tobytes())
            hashes[index] = int.from_bytes(digest.digest(), "little")
        return hashes

    def digest(self) -> str:
        """SHA-256 of what the rows are, wherever they came from."""
        return self._digest(_CONTENT)

    def origin_digest(self) -> str:
        """SHA-256 of where the rows came from; with `digest` it detects a damaged cache entry."""
        return self._digest(_ORIGIN)

    def _digest(self, names: Iterable[str]) -> str:
        total = hashlib.sha256()
        for name in names:
            column = np.ascontiguousarray(self.columns[name])
            total.update(f"{name} {column.nbytes} ".encode())
            for block in _blocks(column.view(np.uint8)):
                total.update(block.data)
        return total.hexdigest()


def release(column: NDArray[Any]) -> None:
    """Give back the memory of the mapped file that ``column`` is part of, if it is; what is read again is loaded again.

    Otherwise, a pass over all rows would keep the whole file in memory.
    """
    owner: object = column
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)


def _blocks(column: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(column), _BLOCK_ITEMS):
        yield column[start : start + _BLOCK_ITEMS]
        release(column)


class NewRows(NamedTuple):
    """Rows to append, in the order of their columns.

    Args:
        tokens: of all rows, ``[n]``.
        targets: ``[n]``, True where the token is scored.
        ends: where each row ends in these, ``[rows]``.
        prompt_lengths: tokens before the answer, or `NO_PROMPT` if the model can't be asked for it; ``[rows]``.
        answers: the expected text after the prompt of each row.
        files: the file of each row; empty for rows made in memory.
        lines: the line of each row, likewise.
    """

    tokens: NDArray[np.int32]
    targets: NDArray[np.bool_]
    ends: NDArray[np.int64]
    prompt_lengths: NDArray[np.int64]
    answers: Sequence[str | None]
    files: Sequence[str] = ()
    lines: Sequence[int] = ()


class RowsWriter:
    """Appends rows to one open binary file for each column, in memory or on disk."""

    def __init__(self, files: Mapping[str, BinaryIO]) -> None:
        self._files = files
        self._tokens = 0
        self._answer_bytes = 0
        self._file_numbers: dict[str, int] = {}
        self.count = 0

    @property
    def file_names(self) -> list[str]:
        """The files that the rows came from, for `Rows`."""
        return list(self._file_numbers)

    def add(self, rows: NewRows) -> None:
        """Append rows."""
        texts = [(answer or "").encode("utf-8") for answer in rows.answers]
        numbers = self._file_numbers
        found = {
            "tokens": rows.tokens,
            "targets": rows.targets,
            "ends": self._tokens + rows.ends,
            "prompt_lengths": rows.prompt_lengths,
            "answer_ends": self._answer_bytes + np.cumsum(list(map(len, texts)), dtype=np.int64),
            "files": [numbers.setdefault(file, len(numbers)) for file in rows.files] or np.zeros(len(texts)),
            "lines": rows.lines or np.zeros(len(texts)),
        }
        for name, column in found.items():
            self._files[name].write(np.asarray(column, COLUMNS[name]).tobytes())
        self._files["answers"].write(b"".join(texts))
        self._tokens += len(rows.tokens)
        self._answer_bytes += sum(map(len, texts))
        self.count += len(texts)


def from_buffers(buffers: Mapping[str, Any], file_names: Sequence[str] = ()) -> Rows:
    """Rows over what a `RowsWriter` wrote, without a copy."""
    columns = {name: np.frombuffer(buffers[name], dtype) for name, dtype in COLUMNS.items()}
    for column in columns.values():
        column.setflags(write=False)
    return Rows(columns, file_names)


def rows_in_memory(rows: Iterable[tuple[NDArray[np.int32], NDArray[Any]]]) -> Rows:
    """Rows of these tokens and targets, without prompts and answers; a target counts once.

    >>> rows_in_memory([(np.array([5, 6, 7], np.int32), np.array([False, True, True]))])[0].tokens
    array([5, 6, 7], dtype=int32)
    """
    buffers = {name: io.BytesIO() for name in COLUMNS}
    writer = RowsWriter(buffers)
    for tokens, targets in rows:
        end, prompt = np.array([len(tokens)]), np.array([NO_PROMPT])
        writer.add(NewRows(tokens, targets, end, prompt, [None]))
    return from_buffers({name: buffer.getvalue() for name, buffer in buffers.items()})
