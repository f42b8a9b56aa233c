"""Rows from .jsonl and .csv files: one file a split, or one file that is split here."""

from __future__ import annotations

import contextlib
import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any, BinaryIO

from mlxsched.data.conversations import HeldOut, Splitter
from mlxsched.data.options import SPLITS, DataOptions, Features
from mlxsched.data.problems import RowProblem, harmless
from mlxsched.data.record import Record
from mlxsched.data.sources import csv_file, jsonl
from mlxsched.errors import DataError
from mlxsched.text import counted

SUFFIXES = (".jsonl", ".csv")
_BAD = 2**64 - 1  # in place of the hash of a record that can't be read; it is reported as a row of train
_FIRST = 20  # rows of each file that are looked at before a model is loaded
_sorted = json.JSONEncoder(sort_keys=True).encode


class Meter:
    """How much of some files has been read."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._paths = tuple(paths)
        self._before = 0
        self._file: BinaryIO | None = None

    @contextlib.contextmanager
    def reading(self, path: Path) -> Iterator[BinaryIO]:
        """Open one of the files."""
        with path.open("rb") as self._file:
            yield self._file
        self._file = None
        self._before += path.stat().st_size

    def share(self) -> float | None:
        """From 0 to 1; None if a file is read otherwise."""
        total = sum(path.stat().st_size for path in self._paths)
        if not total or any(path.suffix.lower() == ".csv" for path in self._paths):
            return None
        return (self._before + (0 if self._file is None else self._file.tell())) / total


def read_file(path: Path, shown: str, split: str, features: Features, meter: Meter) -> Iterator[Record]:
    """The records of one .jsonl or .csv file; ``shown`` is its name in messages."""
    try:
        if path.suffix.lower() == ".csv":
            for number, data, excerpt in csv_file.records(path, features):
                yield Record(split, shown, number, data, features, excerpt)
            return
        with meter.reading(path) as file:
            for number, line in jsonl.lines(file):
                yield Record(split, shown, number, line, features)
    except OSError as error:
        raise DataError(f"{harmless(shown, 200)} can't be read: {error.strerror or error}.") from None


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
        self._meter = Meter(files.values())
        self._features = options.features

    def identity(self) -> str | None:
        """Names and hashes of the files of all splits."""
        files = {split: [path.name, file_hash(path)] for split, path in self._files.items()}
        return json.dumps([self.name, files])

    def records(self) -> Iterator[Record]:
        """The records of train, valid and test, in this order."""
        self._meter = Meter(self._files.values())
        for split, path in self._files.items():
            shown = f"{self.name.rstrip('/')}/{path.name}"
            yield from read_file(path, shown, split, self._features, self._meter)

    def unsplit(self) -> Iterator[Record]:
        """As `records`."""
        return self.records()

    def first_records(self) -> list[Record]:
        """The first few records of each file."""
        names = ((split, path, f"{self.name.rstrip('/')}/{path.name}") for split, path in self._files.items())
        files = (read_file(path, shown, split, self._features, Meter([path])) for split, path, shown in names)
        return [record for file in files for record in islice(file, _FIRST)]

    def share_read(self) -> float | None:
        """By bytes."""
        return self._meter.share()


class SplitFileSource:
    """One file, split by a hash of each record's content and the seed.

    Equal records have equal hashes, so copies of a row never end up in two splits, and shuffling the file does not
    change the split. Rows of one conversation stay together (`conversations.Splitter`).
    """

    def __init__(self, path: Path, options: DataOptions) -> None:
        self.name = str(path)
        self.notes: list[str] = []
        self._path = path
        self._meter = Meter([path])
        self._options = options

    def identity(self) -> str | None:
        """Name and hash of the file, and the options that decide its split."""
        options = self._options
        split = [options.seed, options.valid_fraction, options.test_fraction, options.max_held_out]
        return json.dumps([self.name, file_hash(self._path), *split])

    def records(self) -> Iterator[Record]:
        """All records, in the file's order, each with its split."""
        contents, held_out = self._contents()
        counts = dict.fromkeys(SPLITS, 0)
        # A line that was added after the first pass belongs to train.
        for record, content in zip(self.unsplit(), chain(contents, repeat(_BAD))):  # noqa: B905
            split = "test" if content in held_out.test else "valid" if content in held_out.valid else "train"
            counts[split] += 1
            yield record._replace(split=split)
        sizes = ", ".join(f"{count} {split}" for split, count in counts.items())
        together = f"; {counted(held_out.together, 'row')} stayed with others of their conversation"
        apart = f"; the common beginning of {counted(held_out.apart, 'row')} does not count as a conversation"
        self.notes = [
            f"{self._path.name} was split by content (seed {self._options.seed}): {sizes}"
            + (together if held_out.together else "")
            + (apart if held_out.apart else "")
        ]

    def share_read(self) -> float | None:
        """By bytes; the first of two passes, which decides the split, is not counted."""
        return self._meter.share()

    def unsplit(self) -> Iterator[Record]:
        """All records, in the file's order, as rows for training."""
        self._meter = Meter([self._path])
        return read_file(self._path, self.name, "train", self._options.features, self._meter)

    def first_records(self) -> list[Record]:
        """The first few records."""
        return [*islice(self.unsplit(), _FIRST)]

    def _contents(self) -> tuple[array[int], HeldOut]:
        """The hash of each record, and which of them are held out."""
        splitter, contents = Splitter(self._options), array("Q")
        for record in self.unsplit():
            content = _BAD
            with contextlib.suppress(RowProblem):
                data = record.parsed()
                content = self._hash(data)
                splitter.add(content, data)
            contents.append(content)
        return contents, splitter.held_out()

    def _hash(self, data: Mapping[str, Any]) -> int:
        digest = hashlib.blake2b(_sorted(data).encode(), digest_size=8, key=str(self._options.seed).encode())
        return int.from_bytes(digest.digest(), "big")
