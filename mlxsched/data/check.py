"""What is in a data set, and what is wrong with it, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.analysis.findings import Finding, Severity
from mlxsched.data.dataset import PLACES, Counts, Dataset
from mlxsched.data.joining import RELATED, related_fix, repeated_share
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.rows import Rows
from mlxsched.text import counted


@dataclass(frozen=True)
class SplitReport:
    """Statistics of one split; ``histogram`` is (from, below, rows) by length in tokens."""

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
    """The result of `check`; ``where`` of each finding is the split, and its evidence names rows."""

    splits: Mapping[str, SplitReport]
    findings: list[Finding]
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """Whether there are only notes."""
        return all(finding.severity == "note" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        splits = {split: asdict(report) for split, report in self.splits.items()}
        findings = [_finding_dict(finding) for finding in self.findings]
        return {"healthy": self.healthy, "splits": splits, "findings": findings, "problems": self.problems}


def _finding_dict(finding: Finding) -> dict[str, str]:
    """The keys of ``data check --json``, which scripts read since before all findings had one form."""
    return {
        "code": finding.code,
        "severity": "note" if finding.severity == "note" else "problem",
        "split": finding.where,
        "message": finding.evidence,
        "cure": f"{finding.fix}.",
    }


def check(dataset: Dataset, options: DataOptions, *, one_file: bool = False) -> DataReport:
    """Examine a data set that was loaded with ``skip_bad_rows`` and ``need=()``; from ``one_file`` all splits are made."""
    hashes = {split: rows.row_hashes() for split, rows in dataset.splits.items()}
    reports = {
        split: _report(counts, dataset.splits.get(split), hashes.get(split))
        for split, counts in dataset.counts.items()
    }
    findings = list(_missing(dataset, options, one_file))
    for split, report in reports.items():
        findings += [*_of_counts(split, report.counts, options), *_related(split, dataset)]
        if split in dataset.splits:
            findings += _duplicates(split, dataset.splits[split], hashes[split])
    findings += [] if options.join_turns else _beginnings(dataset)
    findings += _shared(dataset.splits, hashes)
    return DataReport(reports, findings, dataset.problems.lines)


def _report(counts: Counts, rows: Rows | None, hashes: NDArray[np.uint64] | None) -> SplitReport:
    if rows is None or hashes is None:
        return SplitReport(counts, 0, 0, 0, 0, 0, 0, 0, [])
    lengths = rows.lengths
    return SplitReport(
        counts=counts,
        rows=len(rows),
        tokens=int(lengths.sum(dtype=np.int64)),
        targets=rows.scored,
        shortest=int(lengths.min()),
        median=int(np.median(lengths)),
        longest=int(lengths.max()),
        duplicates=len(rows) - len(np.unique(hashes)),
        histogram=histogram(lengths),
    )


def histogram(lengths: NDArray[Any], bins: int = 10) -> list[tuple[int, int, int]]:
    """(from, below, count) over at most ``bins`` intervals of equal ratio.

    >>> histogram(np.array([1, 2, 3, 100]), bins=2)
    [(1, 10, 3), (10, 101, 1)]
    """
    edges = np.unique(np.geomspace(lengths.min(), lengths.max() + 1, bins + 1).round().astype(np.int64))
    counts, _ = np.histogram(lengths, edges)
    return [
        (int(low), int(high), int(count)) for (low, high), count in zip(pairwise(edges), counts, strict=True)
    ]


def _missing(dataset: Dataset, options: DataOptions, one_file: bool) -> Iterator[Finding]:
    for split in SPLITS:
        if split not in dataset.splits:
            severity: Severity = "error" if split == "train" else "note"
            reason, fix = _why_none(split, dataset, options, one_file)
            yield Finding(
                "no_rows", severity, f"there are no usable {split} rows{reason}", where=split, fix=fix
            )


def _why_none(split: str, dataset: Dataset, options: DataOptions, one_file: bool) -> tuple[str, str]:
    """Why ``split`` has no usable row, and the fix. One file without any is judged as a whole."""
    of_file = one_file and not dataset.splits
    counts = list(dataset.counts.values()) if of_file else [dataset.counts.get(split, Counts())]
    bad, dropped = sum(one.bad for one in counts), sum(one.dropped for one in counts)
    if dropped:
        return f": {counted(dropped, 'row')} would be dropped", f"{options.limit_fix}, or shorten the prompts"
    if bad:
        return f": {counted(bad, 'row')} can't be used", options.bad_rows_fix(all_bad=True)
    return "", "Add rows to the file" if one_file else f"Add rows to {split}.jsonl"


def _of_counts(split: str, counts: Counts, options: DataOptions) -> Iterator[Finding]:
    """Findings on rows that are not used as they are."""
    limit, raise_it = options.limit, options.limit_fix
    kinds: list[tuple[str, str, Severity, str, str]] = [
        ("bad", "bad_rows", "error", "can't be used",
         options.bad_rows_fix(all_bad=True) if counts.bad == counts.read else "Fix them, or train with --skip-bad-rows"),
        ("dropped", "dropped", "error", f"have all their targets beyond {limit} and would be dropped",
         f"{raise_it}, or shorten the prompts"),
        ("truncated", "truncated", "error",
         f"are longer than {options.max_tokens} tokens ({limit}) and would be cut", f"{raise_it}, or split the rows"),
        ("open_ended", "open_ended", "note", "do not end with one of the tokenizer's end tokens",
         "Check the chat template: the model won't learn from these rows when to stop"),
        ("ignored_tools", "ignored_tools", "note", "have `tools` that the chat template leaves out",
         "Use a model whose template takes tools, or describe them in the system message"),
    ]  # fmt: skip
    for kind, code, severity, what, fix in kinds:
        number, places = getattr(counts, kind), counts.places.get(kind, [])
        if number:
            evidence = f"{number} of {counts.read} rows {what}{_named(places, number)}"
            yield Finding(code, severity, evidence, where=split, fix=fix)
    if counts.lost_turns:
        places = counts.places.get("lost_turns", [])
        evidence = (
            f"{counted(counts.lost_turns, 'assistant turn')} not trained on, because the chat template rewrites "
            f"them{_named(places, counts.lost_turns)}"
        )
        yield Finding(
            "lost_turns", "note", evidence, where=split, fix="End such chats after the turn to learn"
        )


def _related(split: str, dataset: Dataset) -> Iterator[Finding]:
    counts = dataset.counts[split]
    if counts.related:
        evidence = f"{counts.related} of {counts.used} rows {RELATED}{_named(counts.places['related'], counts.related)}"
        files = {name for rows in dataset.splits.values() for name in rows.file_names}
        yield Finding("related_rows", "error", evidence, where=split, fix=related_fix(files))


def _named(places: Sequence[str], number: int) -> str:
    """``: a, b, ...`` for the first of ``number`` places."""
    if not places:
        return ""
    return f": {', '.join(places)}{', ...' if number > len(places) else ''}"


def _duplicates(split: str, rows: Rows, hashes: NDArray[np.uint64]) -> Iterator[Finding]:
    """A note on rows that repeat an earlier row of the split."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    original = first[inverse]  # [rows]: the first row with the same content
    copies = np.flatnonzero(original != np.arange(len(rows)))
    if len(copies):
        pairs = [f"{rows.place(int(i))} is {rows.place(int(original[i]))}" for i in copies[:PLACES]]
        evidence = f"{len(copies)} of {len(rows)} rows repeat an earlier row{_named(pairs, len(copies))}"
        yield Finding("duplicates", "note", evidence, where=split, fix="Remove them, unless intended")


def _beginnings(dataset: Dataset) -> Iterator[Finding]:
    """A note on training rows that are a prefix of other ones."""
    counts = dataset.counts.get("train")
    if counts is None or not counts.beginnings:
        return
    places = counts.places.get("beginnings", [])
    evidence = (
        f"{counts.beginnings} of {counts.used} rows are a prefix of another row, with {repeated_share(dataset):.0%} "
        f"of all tokens{_named(places, counts.beginnings)}"
    )
    fix = "Join them with --join-turns: the same sum of losses, but other rows share an update"
    yield Finding("beginnings", "note", evidence, where="train", fix=fix)


def _shared(splits: Mapping[str, Rows], hashes: Mapping[str, NDArray[np.uint64]]) -> Iterator[Finding]:
    """Rows that are in two splits."""
    for one, other in combinations([split for split in SPLITS if split in hashes], 2):
        both = np.flatnonzero(np.isin(hashes[other], hashes[one]))
        if len(both):
            first = [int(np.argmax(hashes[one] == hashes[other][i])) for i in both[:PLACES]]
            pairs = [
                f"{splits[other].place(int(i))} is {splits[one].place(j)}"
                for i, j in zip(both, first, strict=False)
            ]
            yield Finding(
                "shared_rows",
                "error",
                f"{len(both)} of {len(hashes[other])} rows are in {one} too{_named(pairs, len(both))}",
                where=other,
                fix=f"Remove them from {one}: the loss on {other} would measure what was memorized",
            )
