"""From a chunk of records to tokenized rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress

import numpy as np

from mlxsched.data.chat import SECONDS, EndlessTemplateError
from mlxsched.data.dataset import Counts
from mlxsched.data.encode import Encoder
from mlxsched.data.formats import format_of
from mlxsched.data.options import DataOptions
from mlxsched.data.problems import Problems, RowProblem, harmless
from mlxsched.data.record import Record
from mlxsched.data.rendering import Rendered, Renderer
from mlxsched.data.rows import NO_PROMPT, NewRows
from mlxsched.data.targets import EncodedRows
from mlxsched.data.time_limit import many_time_limits
from mlxsched.errors import DataError

# Rows are encoded in batches: NumPy and a fast tokenizer take many at once. The limit in characters keeps memory
# bounded: 512 rows of 4 MiB would be 2 GiB of text.
BATCH_ROWS = 512
BATCH_CHARACTERS = 2**20
Format = tuple[str, str]  # its name, and where it was first seen


@dataclass
class Tokenized:
    """The result of tokenizing some records.

    Args:
        rows: parts of each split, in order.
        counts: of each split.
        formats: of each split.
        problems: the records that can't be used.
    """

    rows: dict[str, list[NewRows]] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)
    formats: dict[str, Format] = field(default_factory=dict)
    problems: Problems = field(default_factory=Problems)

    def agrees_with(self, formats: Mapping[str, Format]) -> bool:
        """Whether these records have the formats of earlier ones."""
        return all(formats.get(split, seen)[0] == seen[0] for split, seen in self.formats.items())


class Tokenizing:
    """Tokenizes records with one tokenizer."""

    def __init__(self, encoder: Encoder, options: DataOptions) -> None:
        self._encoder = encoder
        self._options = options
        self._renderer = Renderer(encoder.template(), options.mask_prompt)

    def __call__(self, records: Sequence[Record], formats: Mapping[str, Format]) -> Tokenized:
        """Tokenize records; ``formats`` are those of earlier ones.

        Raises:
            DataError: the chat template does not end.
        """
        found = Tokenized(formats=dict(formats))
        rendered: dict[str, list[tuple[Record, Rendered]]] = {}
        with many_time_limits():
            for record in records:
                text = self._render(record, found)
                if text is not None:
                    rendered.setdefault(record.split, []).append((record, text))
        if found.problems.count and not self._options.skip_bad_rows:
            return found  # the data set will be refused: only look for more bad rows
        for split, pairs in rendered.items():
            for batch in _batches(pairs):
                found.rows.setdefault(split, []).append(self._encode(batch, found))
        return found

    def _render(self, record: Record, found: Tokenized) -> Rendered | None:
        if record.split not in found.counts:
            found.counts[record.split] = Counts()
        found.counts[record.split].read += 1
        try:
            data = record.parsed()
            name = format_of(data, record.features)
            first, where = found.formats.get(record.split, (name, ""))
            if name != first:
                raise RowProblem(f"the format is {name}, but earlier rows are {first} (from {where} on)")
            text = self._renderer.render(data, name, record.features)
            # A bad row decides nothing: with --skip-bad-rows, one at the beginning made all others bad.
            found.formats.setdefault(record.split, (name, record.where))
            return text
        except RowProblem as problem:
            _bad(found, record, problem.what, problem.excerpt or record.excerpt)
            return None
        except EndlessTemplateError:
            raise DataError(
                f"{harmless(record.where, 300)}: the chat template did not end within {SECONDS:g} s of processor "
                "time. Use another model, or fix its chat template."
            ) from None

    def _encode(self, batch: Sequence[tuple[Record, Rendered]], found: Tokenized) -> NewRows:
        records, texts = zip(*batch, strict=True)
        limit = self._options.max_tokens
        whole = self._encoder.encode(texts)
        cut = whole.cut(limit)
        scored, left = (np.diff(rows.target_ends(), prepend=0) > 0 for rows in (whole, cut))
        for record, text in compress(batch, ~scored):
            _bad(found, record, "no token to predict", text.text[:200])
        counts = found.counts[records[0].split]
        counts.add_all("dropped", compress(records, scored & ~left))
        fits = whole.lengths <= limit
        counts.add_all("truncated", compress(records, left & ~fits))
        used = left.tolist()
        for record, text in compress(batch, used):
            if text.lost_turns or text.ignored_tools:
                counts.add("lost_turns", record.where, text.lost_turns)
                counts.add("ignored_tools", record.where, text.ignored_tools)
        ends = self._encoder.end_ids
        if ends:
            counts.add_all("open_ended", compress(records, left & fits & ~whole.end_with(ends)))
        return _new_rows(list(compress(batch, used)), cut.of(left), limit)


def _bad(found: Tokenized, record: Record, what: str, excerpt: str) -> None:
    found.counts[record.split].add("bad", record.where)
    found.problems.add(record.where, what, excerpt)


def _batches(pairs: list[tuple[Record, Rendered]]) -> Iterator[list[tuple[Record, Rendered]]]:
    start = characters = 0
    for stop, (_, rendered) in enumerate(pairs, 1):
        characters += len(rendered.text)
        if stop - start >= BATCH_ROWS or characters >= BATCH_CHARACTERS or stop == len(pairs):
            yield pairs[start:stop]
            start, characters = stop, 0


def _new_rows(batch: Sequence[tuple[Record, Rendered]], rows: EncodedRows, limit: int) -> NewRows:
    prompts = np.where(
        (rows.prompt_lengths > 0) & (rows.prompt_lengths < limit), rows.prompt_lengths, NO_PROMPT
    )
    answers = [text.answer if asked else None for (_, text), asked in zip(batch, prompts >= 0, strict=True)]
    prompts[[answer is None for answer in answers]] = NO_PROMPT
    files, lines = [record.file for record, _ in batch], [record.line for record, _ in batch]
    return NewRows(rows.tokens, rows.targets, rows.ends, prompts, answers, files, lines)
