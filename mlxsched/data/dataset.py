"""Load a data set: read, render, tokenize, cut, and keep; everything a user must know about it goes into notes."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

from mlxsched.data import cache
from mlxsched.data.encode import Encoded, Encoder
from mlxsched.data.formats import Rendered, Renderer, format_of
from mlxsched.data.options import SPLITS, DataOptions
from mlxsched.data.problems import Problems, RowProblem, harmless
from mlxsched.data.rows import COLUMNS, NO_PROMPT, Rows, RowsWriter, from_buffers
from mlxsched.data.sources import Record, Source, open_source
from mlxsched.errors import DataError, UsageError

CHUNK = 512
Progress = Callable[[int], None]


@dataclass
class Counts:
    """What became of the rows of a split.

    ``read``: rows that are there.  ``bad``: those that can't be used.  ``dropped``: those without a target within
    the maximum length.  ``truncated``: those that are used, but cut.  ``lost_turns``: assistant turns of used rows
    that are not targets, because the chat template rewrites them.  ``open_ended``: rows whose last target does not
    end a turn.
    """

    read: int = 0
    bad: int = 0
    dropped: int = 0
    truncated: int = 0
    lost_turns: int = 0
    open_ended: int = 0

    @property
    def used(self) -> int:
        """Rows that are trained on or evaluated."""
        return self.read - self.bad - self.dropped


@dataclass(frozen=True, eq=False)
class Dataset:
    """Tokenized splits; ``fingerprint`` is a hash of their tokens and targets, wherever they came from."""

    splits: Mapping[str, Rows]
    fingerprint: str
    notes: list[str] = field(default_factory=list)
    counts: Mapping[str, Counts] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)
    from_cache: bool = False

    @property
    def train(self) -> Rows | None:
        """Rows to train on."""
        return self.splits.get("train")

    @property
    def valid(self) -> Rows | None:
        """Rows to evaluate on while training."""
        return self.splits.get("valid")

    @property
    def test(self) -> Rows | None:
        """Rows to evaluate on at the end."""
        return self.splits.get("test")


def load_dataset(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    options: DataOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Dataset:
    """Read and tokenize ``source``.

    ``source`` is "excel" (bundled), a directory of {train,valid,test}.jsonl, one .jsonl or .csv file, the name of a
    data set on Hugging Face, or mlx-lm's ``hf_dataset`` block(s).  ``tokenizer`` is mlx-lm's ``TokenizerWrapper``,
    or one of transformers.  ``progress`` is called with the number of rows done so far.

    Raises `DataError`, with ``file:line`` of up to 20 bad rows, when a split can't be used.
    """
    options = options or DataOptions()
    if options.max_seq_length < 2:
        raise UsageError(f"--max-seq-length must be at least 2; got {options.max_seq_length}.")
    opened = open_source(source, options)
    encoder = Encoder(tokenizer, options.mask_prompt)
    read = _Reading(opened, encoder, options, progress)
    if options.cache_dir is None:
        return read.in_memory()
    identity = opened.identity()
    if identity is None:
        return read.in_memory()
    key = _cache_key(identity, encoder, options)
    found = cache.find(options.cache_dir, key, fingerprint_of)
    if found is not None:
        return _require(_from_header(*found), opened, options)
    try:
        return read.on_disk(options.cache_dir, key)
    except OSError as error:  # disk full, or read-only: go on without the cache
        made = read.in_memory()
        made.notes.append(f"tokenized rows are not kept for the next run: {error.strerror or error}")
        return made


def fingerprint_of(splits: Mapping[str, Rows]) -> str:
    """SHA-256 over the rows of all splits."""
    digests = {split: splits[split].digest() for split in SPLITS if split in splits}
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _cache_key(identity: str, encoder: Encoder, options: DataOptions) -> str:
    decides = asdict(replace(options, cache_dir=None, need=()))  # the two that don't change the rows
    facts = [cache.FORMAT, identity, encoder.identity(), decides]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _from_header(header: Mapping[str, Any], splits: Mapping[str, Rows]) -> Dataset:
    counts = {split: Counts(**values) for split, values in header["counts"].items()}
    problems = Problems(**header["problems"])
    return Dataset(splits, header["fingerprint"], list(header["notes"]), counts, problems, from_cache=True)


class _Reading:
    """One pass over a source into writers, in memory or on disk."""

    def __init__(
        self, source: Source, encoder: Encoder, options: DataOptions, progress: Progress | None
    ) -> None:
        self._source = source
        self._encoder = encoder
        self._options = options
        self._progress = progress
        self._renderer = Renderer(encoder.template(), options.mask_prompt)

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
        pending: dict[str, list[Rendered]] = {}
        for done, record in enumerate(self._source.records(), 1):
            if record.split not in self._counts:
                self._counts[record.split] = Counts()
                self._writers[record.split] = RowsWriter(open_split(record.split))
            rendered = self._render(record)
            if rendered is not None:
                pending.setdefault(record.split, []).append(rendered)
                if len(pending[record.split]) >= CHUNK:
                    self._write(record.split, pending.pop(record.split))
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

    def _write(self, split: str, batch: list[Rendered]) -> None:
        if self._problems.count and not self._options.skip_bad_rows:
            return  # refused anyway: only look for the other bad rows
        writer, counts = self._writers[split], self._counts[split]
        for rendered, row in zip(batch, self._encoder.encode(batch), strict=True):
            self._add(writer, counts, rendered, row)

    def _add(self, writer: RowsWriter, counts: Counts, rendered: Rendered, row: Encoded) -> None:
        limit = self._options.max_seq_length
        targets = row.targets[:limit]
        if not targets.any():
            counts.dropped += 1
            return
        counts.truncated += len(row.tokens) > limit
        counts.lost_turns += rendered.lost_turns
        counts.open_ended += len(row.tokens) <= limit and not self._ends_turn(row)
        asked = rendered.answer is not None and 0 < row.prompt_length < limit
        writer.add(
            row.tokens[:limit],
            targets,
            row.prompt_length if asked else NO_PROMPT,
            rendered.answer if asked else None,
        )

    def _ends_turn(self, row: Encoded) -> bool:
        last = row.tokens[row.targets.nonzero()[0][-1]]
        return int(last) in self._encoder.end_ids or not self._encoder.end_ids

    def _finish(self, splits: Mapping[str, Rows]) -> Dataset:
        if self._problems.count and not self._options.skip_bad_rows:
            raise self._problems.error(self._source.name)
        kept = {split: splits[split] for split in SPLITS if split in splits and len(splits[split])}
        notes = list(self._source.notes) + list(self._notes())
        made = Dataset(kept, fingerprint_of(kept), notes, self._counts, self._problems)
        return _require(made, self._source, self._options)

    def _notes(self) -> Iterator[str]:
        limit = self._options.max_seq_length
        for split, counts in self._counts.items():
            if counts.bad:
                yield f"{counts.bad} bad rows of {split} skipped; the first: {self._problems.shown[0]}"
            if counts.dropped:
                yield (
                    f"{counts.dropped} rows of {split} dropped: all their targets lie beyond "
                    f"--max-seq-length {limit}"
                )
            if counts.truncated:
                yield f"{counts.truncated} rows of {split} cut at {limit} tokens (--max-seq-length)"
            if counts.lost_turns:
                yield (
                    f"{counts.lost_turns} assistant turns of {split} are not trained on: the chat template "
                    "writes them differently once others follow"
                )
            if counts.open_ended:
                yield (
                    f"{counts.open_ended} rows of {split} do not end with one of the tokenizer's end tokens: "
                    "the model will not learn from them when to stop"
                )
        if "train" in self._counts and "valid" not in self._counts:
            yield "there are no validation rows: the best adapter can't be told from the last"


def _require(made: Dataset, source: Source, options: DataOptions) -> Dataset:
    for split in options.need:
        if split in made.splits:
            continue
        counts = made.counts.get(split, Counts())
        name = harmless(source.name, 200)
        if counts.bad:
            raise made.problems.error(name)
        if counts.dropped:
            raise DataError(
                f"All {counts.dropped} rows of {name} ({split}) have their targets beyond --max-seq-length "
                f"{options.max_seq_length}; raise it, or shorten the prompts."
            )
        raise DataError(f"{name} has no rows for {split}: the file is empty. Put one row on each line.")
    return made
