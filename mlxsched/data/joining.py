"""Joins conversations that were split into rows: rows that are prefixes of other rows are merged into these.

Chat data often contains a conversation once per answer, and each of these rows repeats the previous ones. The longest
row has all of their tokens. With their targets added to its own, its loss is the sum of their losses, for one pass over
its tokens. Rows are compared as tokens, so joining is exact: if a template rewrites earlier turns, there is nothing to
join.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.rows import Indices, Rows, release

NO_ROW = -1
WORTH_SAYING = 0.07  # of the tokens; `data check` names any
RELATED = "begin with a training row or are the beginning of one, so their loss measures what was memorized"
_MOST = 65_535  # rows in one: targets are counted in 16 bits
_FEWEST = 16  # tokens of a beginning that relates two rows; plain texts share shorter ones by chance
_BLOCK = 1 << 16  # tokens hashed at once: 2 MB
_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2**64


class Beginnings(NamedTuple):
    """Prefixes of rows: the row of each, its number of tokens, and a hash of them; ``[n]`` each."""

    rows: Indices
    lengths: NDArray[np.int64]
    hashes: NDArray[np.uint64]

    def at(self, places: NDArray[Any]) -> Beginnings:
        """Those at ``places``, indices or booleans."""
        return Beginnings(*(column[places] for column in self))

    def parted(self, rows: Rows) -> tuple[Beginnings, Beginnings]:
        """Those that are whole ``rows``, and the others."""
        is_whole = self.lengths == rows.lengths[self.rows]
        return self.at(is_whole), self.at(~is_whole)


def related_fix(files: Collection[str]) -> str:
    """How to fix rows that are `RELATED`; ``files`` are all files that the rows of any split came from."""
    keep = "the rows of a conversation in one of train.jsonl, valid.jsonl and test.jsonl"
    if len(files) == 1:
        return f"Split the file yourself, with {keep}"
    if any(name.endswith("]") for name in files):  # of the hub: "name [split]"
        return f"Choose other splits, or save the data set as files, with {keep}"
    return f"Keep {keep}"


def find_continuations(rows: Rows, found: Beginnings | None = None) -> Indices:
    """For each row, a longer row that begins with all of its tokens; `NO_ROW` for none.

    A row continues at most one other row, and at most one row continues it. If two rows continue the same row, it is
    joined into only one of them. Duplicates without a continuation are not joined, nor are more than 65,535 rows into
    one. The cost is a sort of the rows' hashes and, unless the prefixes are given as ``found``, a pass over the tokens.

    >>> from mlxsched.data.rows import rows_in_memory
    >>> tokens = [np.array(row, np.int32) for row in ([5, 6], [5, 6, 7, 8], [5, 6, 9], [5, 6, 9, 9])]
    >>> find_continuations(rows_in_memory((row, row > 5) for row in tokens)).tolist()
    [2, -1, 3, -1]
    """
    into = np.full(len(rows), NO_ROW, np.int64)
    whole, begun = (beginnings(rows, [rows]) if found is None else found).parted(rows)
    begun = begun.at(np.isin(begun.hashes, whole.hashes))
    whole = whole.at(np.isin(whole.hashes, begun.hashes))
    shorter: dict[int, list[int]] = {}  # rows that nothing continues yet, by their hash, the first one last
    for index, value in zip(whole.rows[::-1].tolist(), whole.hashes[::-1].tolist(), strict=True):
        shorter.setdefault(value, []).append(index)
    # The shortest continuation comes first, and gets the longest row that it continues: the previous turn.
    order = np.lexsort((-begun.lengths, begun.rows, rows.lengths[begun.rows]))
    taken, within = NO_ROW, [1] * len(rows)
    for row, length, value in zip(*(column.tolist() for column in begun.at(order)), strict=True):
        free = shorter[value]
        if row == taken or not free or within[free[-1]] == _MOST:
            continue
        if np.array_equal(rows[free[-1]].tokens, rows[row].tokens[:length]):
            within[row] = within[free[-1]] + 1
            into[free.pop()] = row
            taken = row
    return into


def beginnings(rows: Rows, of: Sequence[Rows]) -> Beginnings:
    """All prefixes of ``rows`` that have the length and the last two tokens of a row in ``of``: in chats, ends of turns.

    The longest rows need not be found, since no row continues them.

    A prefix with the tokens t has the hash ``sum((t[i] + 1) * base**i)`` modulo 2**64, computed from differences of a
    cumulative sum.
    """
    edges = _edges(rows)
    largest = int(np.diff(rows.offsets[edges]).max())  # tokens of a block
    powers, inverse = (
        np.cumprod(np.full(largest, base, np.uint64)) for base in (_BASE, pow(_BASE, -1, 1 << 64))
    )
    ends_as_a_row = _Endings(of)
    lengths = np.unique(np.concatenate([others.lengths for others in of]))
    parts = []
    for first, stop in pairwise(edges):
        tokens = rows.columns["tokens"][rows.offsets[first] : rows.offsets[stop]]
        terms = (tokens.astype(np.uint64) + np.uint64(1)) * powers[: len(tokens)]
        sums = np.cumsum(terms)
        places = ends_as_a_row(tokens)
        offsets = rows.offsets[first : stop + 1] - rows.offsets[first]
        row = np.searchsorted(offsets, places, side="right") - 1
        begin = offsets[row]
        hashes = (sums[places] - sums[begin] + terms[begin]) * inverse[begin]
        found = Beginnings(row + first, places - begin + 1, hashes)
        parts.append(found.at(np.isin(found.lengths, lengths)))
        release(rows.columns["tokens"])
    return Beginnings(*map(np.concatenate, zip(*parts, strict=True)))


class _Endings:
    """Finds the token pairs with which a row ends, except for the longest rows."""

    def __init__(self, of: Sequence[Rows]) -> None:
        longest = max(int(rows.lengths.max()) for rows in of)
        self._pairs = np.unique(np.concatenate([part for rows in of for part in self._of(rows, longest)]))
        lasts = np.unique(self._pairs & 0xFFFFFFFF)
        self._is_last = np.zeros(int(lasts.max(initial=0)) + 2, np.bool_)  # the last entry: all larger tokens
        self._is_last[lasts] = True

    def __call__(self, tokens: NDArray[Any]) -> Indices:
        """The places in ``tokens``, ascending."""
        places = np.flatnonzero(self._is_last.take(tokens, mode="clip"))
        return places[np.isin(self._pair(tokens, places), self._pairs)]

    def _of(self, rows: Rows, longest: int) -> Iterator[NDArray[np.int64]]:
        """The pairs of the rows shorter than ``longest``, in parts, because together they touch every page of the file."""
        tokens, lasts = rows.columns["tokens"], rows.columns["ends"][rows.lengths < longest] - 1
        for start in range(0, len(lasts) + 1, _BLOCK):
            yield self._pair(tokens, lasts[start : start + _BLOCK])
            release(tokens)

    @staticmethod
    def _pair(tokens: NDArray[Any], places: Indices) -> NDArray[np.int64]:
        pairs: NDArray[np.int64] = (tokens[places - 1].astype(np.int64) << 32) + tokens[places]
        return pairs


def _edges(rows: Rows) -> list[int]:
    """First rows of the blocks, and the number of rows."""
    edges = [0]
    while edges[-1] < len(rows):
        full = int(np.searchsorted(rows.columns["ends"], rows.offsets[edges[-1]] + _BLOCK, side="right"))
        edges.append(max(full, edges[-1] + 1))
    return edges


def joined(rows: Rows, into: Indices) -> Rows:
    """``rows`` with each row joined into its continuation ``into``; a target in several of them counts once for each.

    The new rows are in memory.
    """
    targets = rows.columns["targets"].astype(np.uint16)
    leaving = np.flatnonzero(into != NO_ROW)
    # In order of length, so that targets that a row received are passed on.
    for row in leaving[np.argsort(rows.lengths[leaving], kind="stable")]:
        start, length = rows.offsets[into[row]], rows.lengths[row]
        targets[start : start + length] += targets[rows.offsets[row] : rows.offsets[row + 1]]
    if targets.max() < 2:
        targets = targets.astype(np.bool_)
    stays = into == NO_ROW
    answers = np.diff(rows.columns["answer_ends"], prepend=0)
    by_token, by_byte = np.repeat(stays, rows.lengths), np.repeat(stays, answers)
    columns = {
        **{name: rows.columns[name][stays] for name in ("prompt_lengths", "files", "lines")},
        "tokens": rows.columns["tokens"][by_token],
        "targets": targets[by_token],
        "ends": np.cumsum(rows.lengths[stays], dtype=np.int64),
        "answers": rows.columns["answers"][by_byte],
        "answer_ends": np.cumsum(answers[stays]),
    }
    for column in columns.values():
        column.setflags(write=False)
    return Rows(columns, rows.file_names)


def count_beginnings(splits: Mapping[str, Rows], counts: Mapping[str, Counts]) -> None:
    """Record in ``counts`` which training rows are the beginning of others, and which held-out rows are related to them."""
    train = splits.get("train")
    if train is None:
        return
    found = beginnings(train, list(splits.values()))
    begin = np.flatnonzero(find_continuations(train, found) != NO_ROW)
    counts["train"].repeated = int(train.lengths[begin].sum(dtype=np.int64))
    for index in begin:
        counts["train"].add("beginnings", train.place(int(index)))
    for split, rows in splits.items():
        if split != "train":
            theirs = beginnings(rows, [train, rows]).parted(rows)
            for index in _related(found.parted(train), theirs):
                counts[split].add("related", rows.place(int(index)))


def _related(train: tuple[Beginnings, Beginnings], held_out: tuple[Beginnings, Beginnings]) -> Indices:
    """The held-out rows that are the beginning of a row of train, or begin with one."""
    rows = [
        ours.rows[(ours.lengths >= _FEWEST) & _are_in(ours.hashes, theirs.hashes)]
        for ours, theirs in zip(held_out, reversed(train), strict=True)
    ]
    return np.unique(np.concatenate(rows))


def _are_in(few: NDArray[np.uint64], many: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of ``few`` are in ``many``; ``np.isin`` would sort both, which takes ten times as long for 300 of 220,000."""
    if not len(few):
        return np.zeros(0, np.bool_)
    ordered = np.sort(few)
    nearest = ordered[np.minimum(ordered.searchsorted(many), len(few) - 1)]
    return np.isin(few, many[nearest == many])


def with_joined_turns(dataset: Dataset) -> Dataset:
    """``dataset`` with its training conversations joined; other splits do not change, so losses stay comparable."""
    rows = dataset.train
    if rows is None or not dataset.counts["train"].beginnings:
        return dataset
    splits = {**dataset.splits, "train": joined(rows, find_continuations(rows))}
    note = (
        f"{len(rows):,} training rows are joined into {len(splits['train']):,}, with {repeated_share(dataset):.0%} "
        "fewer tokens (join_turns)"
    )
    return replace(dataset, splits=splits, fingerprint=fingerprint_of(splits), notes=[*dataset.notes, note])


def with_offer(dataset: Dataset) -> Dataset:
    """``dataset`` with a note if joining would save a considerable share of its tokens."""
    share = repeated_share(dataset)
    if share < WORTH_SAYING:
        return dataset
    note = (
        f"{dataset.counts['train'].beginnings:,} training rows are a prefix of another one; --join-turns joins them: "
        f"{share:.0%} fewer tokens and the same sum of losses, but other rows share an update"
    )
    return replace(dataset, notes=[*dataset.notes, note])


def repeated_share(dataset: Dataset) -> float:
    """The share of the training rows' tokens that joining saves, 0 to 1; ``dataset`` is not joined yet."""
    if dataset.train is None:
        return 0.0
    return dataset.counts["train"].repeated / int(dataset.train.lengths.sum(dtype=np.int64))
