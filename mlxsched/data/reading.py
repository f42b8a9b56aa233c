"""One pass over a source: render, tokenize, cut and count its rows, into memory or into the cache."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from mlxsched.data import cache
from mlxsched.data.chat import ChatTemplate
from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.encode import Encoder
from mlxsched.data.helpers import Helpers
from mlxsched.data.joining import RELATED, count_beginnings, related_fix
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.problems import Problems, harmless
from mlxsched.data.record import Record, Source
from mlxsched.data.rows import COLUMNS, Rows, RowsWriter, from_buffers
from mlxsched.data.tokenizing import BATCH_CHARACTERS, BATCH_ROWS, Format, Tokenized
from mlxsched.text import counted

# Receives the number of rows read so far, and what share of the source that is, if known.
OnRows = Callable[[int, float | None], None]
OpenSplit = Callable[[str], Mapping[str, BinaryIO]]


class Reader:
    """Reads a source into memory or into a cache entry."""

    def __init__(
        self,
        source: Source,
        encoder: Encoder,
        options: DataOptions,
        progress: OnRows | None,
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self.warnings: list[str] = []  # about reading, not about the data

    def in_memory(self) -> Dataset:
        """Tokenize into memory."""
        files: dict[str, dict[str, io.BytesIO]] = {}

        def open_split(split: str) -> dict[str, io.BytesIO]:
            return files.setdefault(split, {name: io.BytesIO() for name in COLUMNS})

        done = self._read(open_split)
        splits = {
            split: from_buffers(
                {name: file.getbuffer().toreadonly() for name, file in columns.items()},
                done.writers[split].file_names,
            )
            for split, columns in files.items()
        }
        return self._dataset(done, splits)

    def on_disk(self, directory: Path, key: str) -> Dataset:
        """Tokenize into a cache entry, and map it."""
        with cache.new_entry(directory) as temporary:
            with contextlib.ExitStack() as stack:

                def open_split(split: str) -> dict[str, BinaryIO]:
                    paths = {name: temporary / f"{split}.{name}" for name in COLUMNS}
                    return {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}

                done = self._read(open_split)
            splits = {
                split: cache.load_rows(temporary, split, writer.file_names)
                for split, writer in done.writers.items()
            }
            dataset = self._dataset(done, splits)
            header = {
                "source": harmless(self._source.name, 200),
                "files": {split: list(rows.file_names) for split, rows in dataset.splits.items()},
                "origins": {split: rows.origin_digest() for split, rows in dataset.splits.items()},
                "fingerprint": dataset.fingerprint,
                "notes": dataset.notes,
                "counts": {split: asdict(counts) for split, counts in dataset.counts.items()},
                "problems": asdict(dataset.problems),
            }
            cache.keep(temporary, directory, key, header)
        return dataset

    def _read(self, open_split: OpenSplit) -> _Pass:
        done = _Pass(open_split)
        records = 0
        with Helpers(self._encoder, self._options, self._source.share_read) as helpers:
            for chunk, found in helpers.tokenized(_chunks(self._source.records()), done.formats):
                done.add(found)
                records += len(chunk)
                if self._progress is not None:
                    self._progress(records, self._source.share_read())
            self.warnings = helpers.notes
        return done

    def _dataset(self, done: _Pass, splits: Mapping[str, Rows]) -> Dataset:
        if done.problems.count and not self._options.skip_bad_rows:
            all_bad = all(counts.bad == counts.read for counts in done.counts.values())
            fix = self._options.bad_rows_fix(all_bad=all_bad)
            raise done.problems.error(self._source.name, fix)
        kept = {split: splits[split] for split in SPLITS if split in splits and len(splits[split])}
        count_beginnings(kept, done.counts)
        notes = [*self._source.notes, *_notes(done, self._encoder.template(), self._options)]
        return Dataset(kept, fingerprint_of(kept), notes, done.counts, done.problems)


class _Pass:
    """What was tokenized so far."""

    def __init__(self, open_split: OpenSplit) -> None:
        self.writers: dict[str, RowsWriter] = {}
        self.counts: dict[str, Counts] = {}
        self.formats: dict[str, Format] = {}
        self.problems = Problems()
        self._open_split = open_split

    def add(self, found: Tokenized) -> None:
        """Write the rows of a chunk."""
        for split, counts in found.counts.items():
            if split not in self.counts:
                self.counts[split] = Counts()
                self.writers[split] = RowsWriter(self._open_split(split))
            self.counts[split].include(counts)
        for split, parts in found.rows.items():
            for rows in parts:
                self.writers[split].add(rows)
        # Chunks are tokenized at the same time: a later one may not know where a format was first seen.
        self.formats.update({k: seen for k, seen in found.formats.items() if k not in self.formats})
        self.problems.include(found.problems)


def _chunks(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Records that are tokenized together: 512, or fewer long ones."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        chunk.append(record)
        size += len(record.data if isinstance(record.data, bytes) else str(record.data))
        if len(chunk) == BATCH_ROWS or size >= BATCH_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _notes(done: _Pass, template: ChatTemplate | None, options: DataOptions) -> Iterator[str]:
    limit = options.max_tokens
    if done.problems.count:
        yield f"{counted(done.problems.count, 'bad row')} skipped; the first: {done.problems.shown[0]}"
    templated = any(name != "text" for name, _ in done.formats.values())
    if "Alpaca" in {name for name, _ in done.formats.values()}:
        yield "Alpaca rows: instruction and input are what the user says, output is the answer"
    if templated and template is not None and template.writes_today:
        yield "the chat template writes today's date into each row, so the rows differ from day to day"
    for split, counts in done.counts.items():
        if counts.dropped:
            yield f"{counted(counts.dropped, 'row')} of {split} dropped, with all targets beyond {options.limit}"
        if counts.truncated:
            yield f"{counted(counts.truncated, 'row')} of {split} cut at {limit} tokens ({options.limit})"
        if counts.lost_turns:
            yield (
                f"{counted(counts.lost_turns, 'assistant turn')} of {split} not trained on: the chat template "
                "rewrites such turns once others follow"
            )
        if counts.ignored_tools:
            yield f"the chat template leaves out the `tools` of {counted(counts.ignored_tools, 'row')} of {split}"
        if counts.related:
            fix = related_fix({name for writer in done.writers.values() for name in writer.file_names})
            yield f"{counts.related:,} of {counts.used:,} rows of {split} {RELATED}: {fix[0].lower()}{fix[1:]}"
        if counts.open_ended:
            yield (
                f"{counted(counts.open_ended, 'row')} of {split} without one of the tokenizer's end tokens at the "
                "end: the model will not learn from them when to stop"
            )
    if "train" in done.counts and "valid" not in done.counts:
        yield "there are no validation rows: the best adapter can't be distinguished from the last one"
