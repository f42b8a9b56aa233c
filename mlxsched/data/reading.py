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
from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.encode import Encoded, Encoder
from mlxsched.data.formats import Rendered, Renderer, format_of
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.problems import Problems, RowProblem, harmless
from mlxsched.data.rows import COLUMNS, NO_PROMPT, Rows, RowsWriter, from_buffers
from mlxsched.data.sources.files import Record, Source
from mlxsched.text import counted

CHUNK = 512  # rows encoded together, or fewer when they are long
CHUNK_CHARACTERS = 2**20
Progress = Callable[[int], None]


class Reading:
    """One pass over a source into writers, in memory or on disk."""

    def __init__(
        self, source: Source, encoder: Encoder, options: DataOptions, progress: Progress | None
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self._template = encoder.template()
        self._renderer = Renderer(self._template, options.mask_prompt)

    def in_memory(self) -> Dataset:
        """Tokenize into memory."""
        files: dict[str, dict[str, io.BytesIO]] = {}

        def open_split(split: str) -> dict[str, io.BytesIO]:
            return files.setdefault(split, {name: io.BytesIO() for name in COLUMNS})

        self._run(open_split)
        splits = {
            split: from_buffers({name: file.getbuffer().toreadonly() for name, file in columns.items()})
            for split, columns in files.items()
        }
        return self._finish(splits)

    def on_disk(self, directory: Path, key: str) -> Dataset:
        """Tokenize into a cache entry, and map it."""
        with cache.new_entry(directory) as aside:
            with contextlib.ExitStack() as stack:

                def open_split(split: str) -> dict[str, BinaryIO]:
                    paths = {name: aside / f"{split}.{name}" for name in COLUMNS}
                    return {name: stack.enter_context(path.open("wb")) for name, path in paths.items()}

                self._run(open_split)
            made = self._finish({split: cache.load_rows(aside, split) for split in self._writers})
            header = {
                "source": harmless(self._source.name, 200),
                "splits": list(made.splits),
                "fingerprint": made.fingerprint,
                "notes": made.notes,
                "counts": {split: asdict(counts) for split, counts in made.counts.items()},
                "problems": asdict(made.problems),
            }
            cache.keep(aside, directory, key, header)
        return made

    def _run(self, open_split: Callable[[str], Mapping[str, BinaryIO]]) -> None:
        self._writers: dict[str, RowsWriter] = {}
        self._counts: dict[str, Counts] = {}
        self._formats: dict[str, tuple[str, str]] = {}
        self._problems = Problems()
        pending: dict[str, list[tuple[str, Rendered]]] = {}
        size: Counter[str] = Counter()
        for done, record in enumerate(self._source.records(), 1):
            if record.split not in self._counts:
                self._counts[record.split] = Counts()
                self._writers[record.split] = RowsWriter(open_split(record.split))
            rendered = self._render(record)
            if rendered is not None:
                batch = pending.setdefault(record.split, [])
                batch.append((record.where, rendered))
                size[record.split] += len(rendered.text)
                if len(batch) >= CHUNK or size[record.split] >= CHUNK_CHARACTERS:
                    self._write(record.split, pending.pop(record.split))
                    size[record.split] = 0
            if self._progress is not None and done % CHUNK == 0:
                self._progress(done)
        for split, batch in pending.items():
            self._write(split, batch)

    def _render(self, record: Record) -> Rendered | None:
        counts = self._counts[record.split]
        counts.read += 1
        try:
            if isinstance(record.data, RowProblem):
                raise record.data
            name = format_of(record.data, record.features)
            first, where = self._formats.setdefault(record.split, (name, record.where))
            if name != first:
                raise RowProblem(f"the format is {name}, but the rows before are {first} (since {where})")
            return self._renderer.render(record.data, name, record.features)
        except RowProblem as problem:
            counts.bad += 1
            self._problems.add(record.where, problem.what, problem.excerpt or record.excerpt)
            return None

    def _write(self, split: str, batch: list[tuple[str, Rendered]]) -> None:
        if self._problems.count and not self._options.skip_bad_rows:
            return  # refused anyway: only look for the other bad rows
        writer, counts = self._writers[split], self._counts[split]
        encoded = self._encoder.encode([rendered for _, rendered in batch])
        for (where, rendered), row in zip(batch, encoded, strict=True):
            if row.targets.any():
                self._add(writer, counts, rendered, row)
            else:
                counts.bad += 1
                self._problems.add(where, "no token to predict", rendered.text[:200])

    def _add(self, writer: RowsWriter, counts: Counts, rendered: Rendered, row: Encoded) -> None:
        limit = self._options.max_seq_length
        targets = row.targets[:limit]
        if not targets.any():
            counts.dropped += 1
            return
        counts.truncated += len(row.tokens) > limit
        counts.lost_turns += rendered.lost_turns
        counts.open_ended += len(row.tokens) <= limit and not self._encoder.ends_turn(row)
        asked = rendered.answer is not None and 0 < row.prompt_length < limit
        writer.add(
            row.tokens[:limit],
            targets,
            row.prompt_length if asked else NO_PROMPT,
            rendered.answer if asked else None,
        )

    def _finish(self, splits: Mapping[str, Rows]) -> Dataset:
        if self._problems.count and not self._options.skip_bad_rows:
            raise self._problems.error(self._source.name)
        kept = {split: splits[split] for split in SPLITS if split in splits and len(splits[split])}
        notes = list(self._source.notes) + list(self._notes())
        return Dataset(kept, fingerprint_of(kept), notes, self._counts, self._problems)

    def _notes(self) -> Iterator[str]:
        limit = self._options.max_seq_length
        if self._problems.count:
            yield f"{counted(self._problems.count, 'bad row')} skipped; the first: {self._problems.shown[0]}"
        templated = any(name != "text" for name, _ in self._formats.values())
        if templated and self._template is not None and self._template.writes_today:
            yield "the chat template writes today's date into each row: on another day the rows are others"
        for split, counts in self._counts.items():
            if counts.dropped:
                rows = counted(counts.dropped, "row")
                yield f"{rows} of {split} dropped, with all targets beyond --max-seq-length {limit}"
            if counts.truncated:
                yield f"{counted(counts.truncated, 'row')} of {split} cut at {limit} tokens (--max-seq-length)"
            if counts.lost_turns:
                yield (
                    f"{counted(counts.lost_turns, 'assistant turn')} of {split} not trained on: the chat template "
                    "writes such turns differently once others follow"
                )
            if counts.open_ended:
                yield (
                    f"{counted(counts.open_ended, 'row')} of {split} without one of the tokenizer's end tokens at the end: "
                    "the model will not learn from them when to stop"
                )
        if "train" in self._counts and "valid" not in self._counts:
            yield "there are no validation rows: the best adapter can't be told from the last"
