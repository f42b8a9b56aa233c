"""One pass over a source: render, tokenize, cut and count its rows, into memory or into the cache."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from mlxsched.data import cache
from mlxsched.data.chat import SECONDS, ChatTemplate, EndlessTemplateError
from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.encode import Encoded, Encoder
from mlxsched.data.formats import format_of
from mlxsched.data.joining import RELATED, count_beginnings, related_fix
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.problems import Problems, RowProblem, harmless
from mlxsched.data.record import Record, Source
from mlxsched.data.rendering import Rendered, Renderer
from mlxsched.data.rows import COLUMNS, NO_PROMPT, Rows, RowsWriter, from_buffers
from mlxsched.data.time_limit import many_time_limits
from mlxsched.errors import DataError
from mlxsched.text import counted

# Rows are encoded in batches, because a fast tokenizer uses all cores for a batch. The limit in characters keeps
# memory bounded: 512 rows of 4 MiB would be 2 GiB of text.
BATCH_ROWS = 512
BATCH_CHARACTERS = 2**20
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
        self._template = encoder.template()

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
        done = _Pass(self._encoder, self._template, self._options, open_split)
        with many_time_limits():
            for number, record in enumerate(self._source.records(), 1):
                done.add(record)
                if self._progress is not None and number % BATCH_ROWS == 0:
                    self._progress(number, self._source.share_read())
        done.finish()
        return done

    def _dataset(self, done: _Pass, splits: Mapping[str, Rows]) -> Dataset:
        if done.problems.count and not self._options.skip_bad_rows:
            all_bad = all(counts.bad == counts.read for counts in done.counts.values())
            fix = self._options.bad_rows_fix(all_bad=all_bad)
            raise done.problems.error(self._source.name, fix)
        kept = {split: splits[split] for split in SPLITS if split in splits and len(splits[split])}
        count_beginnings(kept, done.counts)
        notes = [*self._source.notes, *_notes(done, self._template, self._options)]
        return Dataset(kept, fingerprint_of(kept), notes, done.counts, done.problems)


class _Pass:
    """The state of one pass: batches that wait to be encoded, writers, counts and problems."""

    def __init__(
        self,
        encoder: Encoder,
        template: ChatTemplate | None,
        options: DataOptions,
        open_split: OpenSplit,
    ) -> None:
        self.writers: dict[str, RowsWriter] = {}
        self.counts: dict[str, Counts] = {}
        self.formats: dict[str, tuple[str, str]] = {}  # of each split: name, and where it was first seen
        self.problems = Problems()
        self._encoder = encoder
        self._options = options
        self._renderer = Renderer(template, options.mask_prompt)
        self._open_split = open_split
        self._waiting: dict[str, list[tuple[Record, Rendered]]] = {}
        self._characters: Counter[str] = Counter()

    def add(self, record: Record) -> None:
        """Render a record, and encode the batch that it fills."""
        split = record.split
        if split not in self.counts:
            self.counts[split] = Counts()
            self.writers[split] = RowsWriter(self._open_split(split))
        rendered = self._render(record)
        if rendered is None:
            return
        batch = self._waiting.setdefault(split, [])
        batch.append((record._replace(data={}), rendered))  # the rendered text replaces the data
        self._characters[split] += len(rendered.text)
        if len(batch) >= BATCH_ROWS or self._characters[split] >= BATCH_CHARACTERS:
            self._encode(split)

    def finish(self) -> None:
        """Encode what still waits."""
        for split in list(self._waiting):
            self._encode(split)

    def _render(self, record: Record) -> Rendered | None:
        counts = self.counts[record.split]
        counts.read += 1
        try:
            if isinstance(record.data, RowProblem):
                raise record.data
            name = format_of(record.data, record.features)
            first, where = self.formats.setdefault(record.split, (name, record.where))
            if name != first:
                raise RowProblem(f"the format is {name}, but earlier rows are {first} (from {where} on)")
            return self._renderer.render(record.data, name, record.features)
        except RowProblem as problem:
            self._bad(record, problem.what, problem.excerpt or record.excerpt)
            return None
        except EndlessTemplateError:
            raise DataError(
                f"{harmless(record.where, 300)}: the chat template did not end within {SECONDS:g} s of processor "
                "time. Use another model, or fix its chat template."
            ) from None

    def _bad(self, record: Record, what: str, excerpt: str) -> None:
        self.counts[record.split].add("bad", record.where)
        self.problems.add(record.where, what, excerpt)

    def _encode(self, split: str) -> None:
        batch = self._waiting.pop(split)
        self._characters[split] = 0
        if self.problems.count and not self._options.skip_bad_rows:
            return  # the data set will be refused: only look for more bad rows
        encoded = self._encoder.encode([rendered for _, rendered in batch])
        for (record, rendered), row in zip(batch, encoded, strict=True):
            if row.targets.any():
                self._write(record, rendered, row)
            else:
                self._bad(record, "no token to predict", rendered.text[:200])

    def _write(self, record: Record, rendered: Rendered, row: Encoded) -> None:
        counts, limit = self.counts[record.split], self._options.max_tokens
        targets = row.targets[:limit]
        if not targets.any():
            counts.add("dropped", record.where)
            return
        whole = len(row.tokens) <= limit
        counts.add("truncated", record.where, not whole)
        counts.add("lost_turns", record.where, rendered.lost_turns)
        counts.add("ignored_tools", record.where, rendered.ignored_tools)
        counts.add("open_ended", record.where, whole and not self._encoder.ends_turn(row))
        asked = rendered.answer is not None and 0 < row.prompt_length < limit
        self.writers[record.split].add(
            row.tokens[:limit],
            targets,
            row.prompt_length if asked else NO_PROMPT,
            rendered.answer if asked else None,
            (record.file, record.line),
        )


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
