"""What is in a data set, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.dataset import Counts, Dataset
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.rows import Rows


@dataclass(frozen=True)
class Finding:
    """One thing to know: a ``problem`` makes the check fail, a ``note`` does not."""

    code: str
    severity: str
    split: str
    message: str
    cure: str


@dataclass(frozen=True)
class SplitReport:
    """Numbers of one split; ``histogram`` is (from, below, rows) by length in tokens."""

    counts: Counts
    rows: int
    tokens: int
    targets: int
    shortest: int
    median: int
    longest: int
    duplicates: int
    histogram: list[tuple[int, int, int]]


@dataclass(frozen=True)
class DataReport:
    """The result of `check`."""

    splits: Mapping[str, SplitReport]
    findings: list[Finding]
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found but notes."""
        return not any(finding.severity == "problem" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"healthy": self.healthy, **asdict(self)}


def check(dataset: Dataset, options: DataOptions) -> DataReport:
    """Examine a data set that was loaded with ``skip_bad_rows`` and without needs."""
    hashes = {split: rows.row_hashes() for split, rows in dataset.splits.items()}
    reports = {
        split: _report(counts, dataset.splits.get(split), hashes.get(split))
        for split, counts in dataset.counts.items()
    }
    findings = list(_missing(dataset))
    for split, report in reports.items():
        findings += _of_split(split, report, options)
    findings += _shared(hashes)
    return DataReport(reports, findings, dataset.problems.shown)


def _report(counts: Counts, rows: Rows | None, hashes: NDArray[np.uint64] | None) -> SplitReport:
    if rows is None or hashes is None:
        return SplitReport(counts, 0, 0, 0, 0, 0, 0, 0, [])
    lengths = rows.lengths
    return SplitReport(
        counts=counts,
        rows=len(rows),
        tokens=int(lengths.sum(dtype=np.int64)),
        targets=int(rows.target_counts.sum(dtype=np.int64)),
        shortest=int(lengths.min()),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        duplicates=len(rows) - len(np.unique(hashes)),
        histogram=histogram(lengths),
    )


def histogram(lengths: NDArray[Any], bins: int = 10) -> list[tuple[int, int, int]]:
    """(from, below, count) over at most ``bins`` classes of equal ratio.

    >>> histogram(np.array([1, 2, 3, 100]), bins=2)
    [(1, 10, 3), (10, 101, 1)]
    """
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, bins + 1).round().astype(np.int64))
    counts, _ = np.histogram(lengths, edges)
    return [
        (int(low), int(high), int(count)) for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]


def _missing(dataset: Dataset) -> Iterator[Finding]:
    for split in SPLITS:
        severity = "problem" if split == "train" else "note"
        if split not in dataset.splits:
            yield Finding(
                "no_rows", severity, split, f"there are no usable {split} rows", f"Add rows to {split}.jsonl."
            )


def _of_split(split: str, report: SplitReport, options: DataOptions) -> Iterator[Finding]:
    counts, limit = report.counts, options.max_seq_length
    found = [
        ("bad_rows", "problem", counts.bad, "cannot be used", "Mend them, or train with --skip-bad-rows."),
        (
            "dropped",
            "problem",
            counts.dropped,
            f"have all their targets beyond {limit} tokens and would be dropped",
            "Raise --max-seq-length, or shorten the prompts.",
        ),
        (
            "truncated",
            "problem",
            counts.truncated,
            f"are longer than {limit} tokens and would be cut",
            "Raise --max-seq-length, or split them.",
        ),
        (
            "duplicates",
            "note",
            report.duplicates,
            "are in the split already",
            "Remove them, if not on purpose.",
        ),
        (
            "open_ended",
            "note",
            counts.open_ended,
            "do not end with one of the tokenizer's end tokens",
            "The model will not learn from them when to stop: check the chat template.",
        ),
    ]
    for code, severity, count, what, cure in found:
        if count:
            yield Finding(code, severity, split, f"{count} of {counts.read} rows {what}", cure)
    if counts.lost_turns:
        message = f"{counts.lost_turns} assistant turns are not trained on: the chat template rewrites them"
        yield Finding("lost_turns", "note", split, message, "Cut such chats after the turn to be learned.")


def _shared(hashes: Mapping[str, NDArray[np.uint64]]) -> Iterator[Finding]:
    for one, other in combinations([split for split in SPLITS if split in hashes], 2):
        count = int(np.isin(hashes[other], hashes[one]).sum())
        if count:
            message = f"{count} of {len(hashes[other])} rows are in {one} too"
            cure = f"Remove them from {one}: {other} does not measure what was learned otherwise."
            yield Finding("shared_rows", "problem", other, message, cure)
