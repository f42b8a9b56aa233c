"""Which tokens are targets, for all rows of a batch at once: a NumPy call for each row would take most of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.rendering import Rendered

Tokens = NDArray[np.int32]
Numbers = NDArray[np.int64]
_LAST = np.arange(1, 5)  # a template may write line breaks after the token that ends a turn


class Encoded(NamedTuple):
    """One row as tokens; ``prompt_length`` is the number of tokens before the last span."""

    tokens: Tokens
    targets: NDArray[np.bool_]
    prompt_length: int


@dataclass(frozen=True, eq=False)
class EncodedRows:
    """Rows as tokens, one after another.

    Args:
        tokens: of all rows, ``[n]``.
        targets: ``[n]``.
        ends: where each row ends in these, ``[rows]``.
        prompt_lengths: tokens before the last span of each row, ``[rows]``.
    """

    tokens: Tokens
    targets: NDArray[np.bool_]
    ends: Numbers
    prompt_lengths: Numbers

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Encoded:
        start, stop = self.ends[index - 1] if index else 0, self.ends[index]
        return Encoded(self.tokens[start:stop], self.targets[start:stop], int(self.prompt_lengths[index]))

    def __iter__(self) -> Iterator[Encoded]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> Numbers:
        """Tokens of each row, ``[rows]``."""
        return np.diff(self.ends, prepend=0)

    def target_ends(self) -> Numbers:
        """The number of targets up to the end of each row, ``[rows]``."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.targets)])[self.ends]

    def cut(self, limit: int) -> EncodedRows:
        """The first ``limit`` tokens of each row."""
        lengths = self.lengths
        if not len(self) or lengths.max() <= limit:
            return self
        within = np.arange(len(self.tokens)) - np.repeat(self.ends - lengths, lengths) < limit
        ends = np.cumsum(np.minimum(lengths, limit))
        return EncodedRows(self.tokens[within], self.targets[within], ends, self.prompt_lengths)

    def of(self, rows: NDArray[np.bool_]) -> EncodedRows:
        """Those rows where ``rows`` is True."""
        if rows.all():
            return self
        lengths = self.lengths
        within = np.repeat(rows, lengths)
        ends = np.cumsum(lengths[rows])
        return EncodedRows(self.tokens[within], self.targets[within], ends, self.prompt_lengths[rows])

    def end_with(self, ends: frozenset[int]) -> NDArray[np.bool_]:
        """For each row: whether one of ``ends`` is among its last four targets."""
        counts = self.target_ends()
        wanted = counts[:, None] - _LAST
        exists = wanted >= np.concatenate([[0], counts[:-1]])[:, None]
        is_end = _are_in(self.tokens[self.targets], ends)
        found: NDArray[np.bool_] = np.any(is_end[np.where(exists, wanted, -1)], axis=1)
        return found


class Marker:
    """Marks the targets of encoded rows.

    Args:
        mask_prompt: score only the spans instead of all tokens.
        eos: the token that is put at the end of raw rows, if any.
        ends: the tokens that end a turn.
        is_blank: whether these tokens are white space.
    """

    def __init__(
        self,
        mask_prompt: bool,
        eos: int | None,
        ends: frozenset[int],
        is_blank: Callable[[tuple[int, ...]], bool],
    ) -> None:
        self._mask_prompt = mask_prompt
        self._eos = eos
        self._ends = ends
        self._is_blank = is_blank

    def mark(self, batch: Sequence[Rendered], ids: Sequence[Tokens], spans: NDArray[np.int64]) -> EncodedRows:
        """Rows of the tokens ``ids``.

        Args:
            batch: what was encoded.
            ids: the tokens of each row.
            spans: first token and the one after the last of each span, and then of each unscored span, row by row:
                ``[spans, 2]``, counted from the beginning of the row.
        """
        tokens = np.concatenate(ids)
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        owners, scored = _owners(batch)
        offsets = np.cumsum(lengths) - lengths
        stops = self._stops(batch, tokens, spans + offsets[owners, None], owners, scored) - offsets[owners]
        if batch[0].raw:
            tokens, lengths = self._closed(tokens, lengths)
        last = np.full(len(batch), -1)
        last[owners[scored]] = np.flatnonzero(scored)  # the last of equal indices wins
        asked = last >= 0
        prompts = np.zeros(len(batch), np.int64)
        prompts[asked] = spans[last[asked], 0]
        if batch[0].raw:  # the end token, appended here or by the tokenizer, belongs to the answer
            stops[last[asked]] = lengths[asked]
        ends = np.cumsum(lengths)
        begins = (ends - lengths)[owners]
        firsts, stops = spans[:, 0] + begins, stops + begins
        targets = _covered(len(tokens), firsts[scored], stops[scored])
        whole = [row.spans is None or not self._mask_prompt for row in batch]
        if any(whole):
            by_token = np.repeat(whole, lengths)
            targets |= by_token
            targets &= ~(by_token & _covered(len(tokens), firsts[~scored], stops[~scored]))
        targets[(ends - lengths)[lengths > 0]] = False  # nothing precedes the first token
        return EncodedRows(tokens, targets, ends, prompts)

    def _stops(
        self,
        batch: Sequence[Rendered],
        tokens: Tokens,
        spans: Numbers,
        owners: Numbers,
        scored: NDArray[np.bool_],
    ) -> Numbers:
        """The end of each span without the line break that a template writes after an end token.

        The model stops at the end token, so what follows would be a target that it never gets to predict.
        """
        stops = spans[:, 1].copy()
        exact = np.fromiter((row.exact for row in batch), np.bool_, len(batch))
        places = stops[:, None] - _LAST
        inside = (places >= spans[:, :1]) & (scored & ~exact[owners])[:, None]
        is_end = _are_in(tokens, self._ends)[np.where(inside, places, -1)]
        for span in np.flatnonzero(is_end.any(axis=1) & ~is_end[:, 0]).tolist():
            after, stop = int(is_end[span].argmax()), int(stops[span])
            if self._is_blank(tuple(tokens[stop - after : stop].tolist())):
                stops[span] = stop - after
        return stops

    def _closed(self, tokens: Tokens, lengths: Numbers) -> tuple[Tokens, Numbers]:
        """Tokens and lengths with the end token appended to each row that does not end with it."""
        if self._eos is None:
            return tokens, lengths
        ends = np.cumsum(lengths)
        is_open = lengths == 0
        is_open[~is_open] = tokens[ends[~is_open] - 1] != self._eos
        return np.insert(tokens, ends[is_open], np.int32(self._eos)), lengths + is_open


def _owners(batch: Sequence[Rendered]) -> tuple[Numbers, NDArray[np.bool_]]:
    """The row of each span, in the order of `Marker.mark`, and whether the span is scored."""
    counts = [count for row in batch for count in (len(row.spans or ()), len(row.unscored))]
    kinds = np.repeat(np.arange(len(counts)), counts)
    return kinds // 2, kinds % 2 == 0


def _covered(length: int, firsts: Numbers, stops: Numbers) -> NDArray[np.bool_]:
    """Which of ``length`` places are in one of the spans."""
    changes = np.zeros(length + 1, np.int64)
    np.add.at(changes, firsts, 1)
    np.add.at(changes, stops, -1)
    covered: NDArray[np.bool_] = np.cumsum(changes[:-1]) > 0
    return covered


def _are_in(tokens: Tokens, ends: frozenset[int]) -> NDArray[np.bool_]:
    """Which tokens are in ``ends``, followed by False, so that the index -1 is not an end."""
    found = np.zeros(len(tokens) + 1, np.bool_)
    for end in ends:  # few, so comparing is faster than np.isin
        found[:-1] |= tokens == end
    return found
