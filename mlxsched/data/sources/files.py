"""Where rows come from: the bundled set, a directory, one file, or the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mlxsched.data import csv_file, jsonl
from mlxsched.data.options import SPLITS, DataOptions, Features
from mlxsched.data.problems import RowProblem, harmless
from mlxsched.errors import DataError
from mlxsched.text import closest

BUNDLED = ("excel",)
_SUFFIXES = (".jsonl", ".csv")


class Record(NamedTuple):
    """One record as read: its split, ``file:line``, the object or why there is none, and how it begins."""

    split: str
    where: str
    data: Mapping[str, Any] | RowProblem
    excerpt: str
    features: Features


class Source(Protocol):
    """Somewhere that records can be read from, any number of times."""

    name: str
    notes: list[str]

    def identity(self) -> str | None:
        """A hash of the content, without the path; None when it can't be known before reading."""

    def records(self) -> Iterator[Record]:
        """All records, in order."""


def open_source(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], options: DataOptions
) -> Source:
    """The source that ``source`` names; raises `DataError` when there is none."""
    from mlxsched.data.sources.hub import HubSource

    if not isinstance(source, str):
        blocks = [source] if isinstance(source, Mapping) else list(source)
        return HubSource.of_blocks(blocks, options)
    if source in BUNDLED:
        from mlxsched.bundled import data_path

        return _directory(Path(data_path(source)), options, name=source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _directory(path, options, name=source)
    if path.is_file():
        return _single(path, options)
    if _is_path(source) or (find_spec("datasets") is None and path.parent.is_dir()):
        raise DataError(f"There is no file or directory {harmless(source, 200)!r}.{_advice(source, path)}")
    return HubSource.of_name(source, options)


def _is_path(source: str) -> bool:
    return (
        source.startswith((".", "/", "~"))
        or source.endswith((*_SUFFIXES, ".json", "/"))
        or source.count("/") > 1
    )


def _advice(source: str, path: Path) -> str:
    """What is there instead; and, for a name of the hub's kind, what loading from it takes."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        names = []
    near = closest(path.name, names if "/" in source else [*BUNDLED, *names])
    advice = f" Did you mean {harmless(str(path.parent / near), 200)!r}?" if near else ""
    if "/" not in source:
        advice += f" Bundled: {', '.join(BUNDLED)}."
    elif not _is_path(source):
        advice += ' If it is a data set of Hugging Face: pip install "datasets"'
    return advice


def _directory(path: Path, options: DataOptions, name: str) -> Source:
    files = {}
    for split in SPLITS:
        there = [path / f"{split}{suffix}" for suffix in _SUFFIXES if (path / f"{split}{suffix}").is_file()]
        if there:
            files[split] = there[0]
    for split in options.need or (SPLITS[0],) * (not files):
        if split not in files:
            raise DataError(f"{harmless(name, 200)} has no {split}.jsonl. {_listing(path)}")
    return FilesSource(name, files, options)


def _listing(path: Path) -> str:
    try:
        names = sorted(entry.name for entry in path.iterdir())
    except OSError as error:
        return f"It can't be listed: {error.strerror}."
    if not names:
        return "The directory is empty."
    shown = ", ".join(harmless(name, 40) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    rows = [name for name in names if name.endswith(_SUFFIXES)]
    if len(rows) == 1:
        file = harmless(str(path / rows[0]), 200)
        return f"It holds {shown}. Give the file itself, and it is split: --data {file}"
    return f"It holds {shown}. Name the files train.jsonl, and (optional) valid.jsonl and test.jsonl."


def _single(path: Path, options: DataOptions) -> Source:
    if path.suffix.lower() not in _SUFFIXES:
        raise DataError(f"{harmless(str(path), 200)} is neither .jsonl nor .csv; convert it to one of these.")
    return SplitFileSource(path, options)


def read_file(path: Path, shown: str, split: str, features: Features) -> Iterator[Record]:
    """The records of one .jsonl or .csv file."""
    try:
        if path.suffix.lower() == ".csv":
            for number, data, excerpt in csv_file.records(path, features.chat):
                yield Record(split, f"{shown}:{number}", data, excerpt, features)
            return
        with path.open("rb") as file:
            for number, line in jsonl.lines(file):
                yield _json_record(line, split, f"{shown}:{number}", features)
    except OSError as error:
        raise DataError(f"{harmless(shown, 200)} can't be read: {error.strerror or error}.") from None


def _json_record(line: bytes | RowProblem, split: str, where: str, features: Features) -> Record:
    if isinstance(line, RowProblem):
        return Record(split, where, line, "", features)
    excerpt = line[:200].decode("utf-8", "replace")
    try:
        return Record(split, where, jsonl.parse(line), excerpt, features)
    except RowProblem as problem:
        return Record(split, where, problem, excerpt, features)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{harmless(str(path), 200)} can't be read: {error.strerror or error}.") from None


class FilesSource:
    """One file a split."""

    def __init__(self, name: str, files: Mapping[str, Path], options: DataOptions) -> None:
        self.name = name
        self.notes: list[str] = []
        self._files = files
        self._features = options.features

    def identity(self) -> str | None:
        """Hash of the files of all splits."""
        return json.dumps({split: [path.suffix, file_hash(path)] for split, path in self._files.items()})

    def records(self) -> Iterator[Record]:
        """The records of train, valid and test, in this order."""
        for split, path in self._files.items():
            yield from read_file(path, f"{self.name.rstrip('/')}/{path.name}", split, self._features)


class SplitFileSource:
    """One file, shared out over the splits by a hash of each record's content and the seed.

    Equal records have equal hashes, so that a duplicate never stands in two splits; the split does not change
    when rows are shuffled. It is made from distinct contents, in the order of their hashes: test first, then
    valid.
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        self.name = str(path)
        self.notes: list[str] = []
        self._path = path
        self._options = options

    def identity(self) -> str | None:
        """Hash of the file, and what decides its split."""
        options = self._options
        split = [options.seed, options.valid_fraction, options.test_fraction, options.max_held_out]
        return json.dumps([self._path.suffix, file_hash(self._path), *split])

    def records(self) -> Iterator[Record]:
        """All records, in the file's order, each with the split it falls into."""
        test, valid = self._bounds()
        counts = dict.fromkeys(SPLITS, 0)
        for record in self._read():
            place = self._hash(record)
            split = "test" if place < test else "valid" if place < valid else "train"
            counts[split] += 1
            yield record._replace(split=split)
        sizes = ", ".join(f"{count} {split}" for split, count in counts.items())
        self.notes = [f"{self._path.name} was split by content (seed {self._options.seed}): {sizes}"]

    def _read(self) -> Iterator[Record]:
        return read_file(self._path, self.name, "train", self._options.features)

    def _bounds(self) -> tuple[int, int]:
        """Hashes below the first are test rows, below the second validation rows."""
        good = (self._hash(record) for record in self._read() if not isinstance(record.data, RowProblem))
        places = np.unique(np.fromiter(good, np.uint64))
        options = self._options
        test = _share(len(places), options.test_fraction, options.max_held_out)
        valid = test + _share(len(places), options.valid_fraction, options.max_held_out)
        if valid >= len(places):
            return 0, 0
        return int(places[test]), int(places[valid])

    def _hash(self, record: Record) -> int:
        if isinstance(record.data, RowProblem):
            return 2**64 - 1
        text = json.dumps(record.data, sort_keys=True)
        digest = hashlib.blake2b(text.encode(), digest_size=8, key=str(self._options.seed).encode())
        return int.from_bytes(digest.digest(), "big")


def _share(count: int, fraction: float, most: int) -> int:
    if fraction <= 0:
        return 0
    return min(most, max(1, round(count * fraction)))
