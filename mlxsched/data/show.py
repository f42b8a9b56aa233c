"""Rows as the model sees them: the text of their tokens, and which parts of it are targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from mlxsched.data.rows import Rows
from mlxsched.errors import UsageError
from mlxsched.text import counted


class Segment(NamedTuple):
    """Consecutive tokens that are all targets, or all not, as text."""

    text: str
    target: bool


@dataclass(frozen=True)
class ShownRow:
    """One row.

    Args:
        row: its number within the split, from 1.
        file: where it came from; None for rows made in memory.
        line: its line in the file, from 1.
        segments: its text; special tokens are included.
        tokens: how many tokens it has.
        targets: how many of them are scored.
    """

    row: int
    file: str | None
    line: int | None
    segments: list[Segment]
    tokens: int
    targets: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {**vars(self), "segments": [segment._asdict() for segment in self.segments]}


def show(rows: Rows, tokenizer: Any, numbers: Iterable[int]) -> Iterator[ShownRow]:
    """The rows of these numbers (from 1)."""
    for number in numbers:
        tokens, targets = rows[number - 1]
        file, line = rows.origin(number - 1) or (None, None)
        yield ShownRow(
            number,
            file,
            line,
            segments(tokenizer, tokens, targets),
            len(tokens),
            int(np.count_nonzero(targets)),
        )


def segments(tokenizer: Any, tokens: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> list[Segment]:
    """The text of ``tokens``, cut where targets begin and end.

    Each cut is made in the text of all tokens up to there: some tokenizers drop the space in front of a text that is
    decoded by itself.
    """
    changes = np.flatnonzero(np.diff(targets > 0)) + 1
    edges = [0, *changes.tolist(), len(tokens)]
    found, before = [], ""
    for start, stop in pairwise(edges):
        text = _decode(tokenizer, tokens[:stop])
        # A character whose bytes are cut in two can't be shown in either part.
        part = text[len(before) :] if text.startswith(before) else _decode(tokenizer, tokens[start:stop])
        found.append(Segment(part, bool(targets[start])))
        before = text
    return found


def _decode(tokenizer: Any, tokens: np.ndarray[Any, Any]) -> str:
    # The clean-up of some older tokenizers removes spaces that the model does see.
    return str(
        tokenizer.decode(tokens.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    )


def parse_numbers(text: str, count: int) -> list[int]:
    """Row numbers such as ``1,2,5-8`` of ``count`` rows.

    >>> parse_numbers("1,2,5-8", 100)
    [1, 2, 5, 6, 7, 8]
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        low = _number(first, text, count)
        numbers += range(low, (_number(last, text, count) if dash else low) + 1)
    return numbers


def _number(text: str, whole: str, count: int) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--rows takes numbers and ranges, such as 1,2,5-8; got {whole!r}.")
    if len(text) > 18 or not 1 <= int(text) <= count:
        raise UsageError(
            f"--rows {whole}: there is no row {text[:20]}; the split has {counted(count, 'row')}."
        )
    return int(text)
