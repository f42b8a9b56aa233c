"""Load a data set by name, from the cache where it is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlxsched.data import cache
from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.encode import Encoder
from mlxsched.data.options import DataOptions
from mlxsched.data.problems import Problems, harmless
from mlxsched.data.reading import Progress, Reading
from mlxsched.data.rows import Rows
from mlxsched.data.sources.files import Source, open_source
from mlxsched.errors import DataError, UsageError
from mlxsched.text import counted


def load_dataset(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    options: DataOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Dataset:
    """Read and tokenize ``source``.

    ``source`` is "excel" (bundled), a directory of {train,valid,test}.jsonl, one .jsonl or .csv file, the
    name of a data set on Hugging Face, or mlx-lm's ``hf_dataset`` block(s).  ``tokenizer`` is mlx-lm's
    ``TokenizerWrapper``, or one of transformers.  ``progress`` is called with the number of rows done so far.

    Raises `DataError`, with ``file:line`` of up to 20 bad rows, when a split can't be used.
    """
    options = options or DataOptions()
    if options.max_seq_length < 2:
        raise UsageError(f"--max-seq-length must be at least 2; got {options.max_seq_length}.")
    opened = open_source(source, options)
    made = _load(opened, Encoder(tokenizer, options.mask_prompt), options, progress)
    _require(made, opened, options)
    return made


def _load(source: Source, encoder: Encoder, options: DataOptions, progress: Progress | None) -> Dataset:
    reading = Reading(source, encoder, options, progress)
    identity = source.identity() if options.cache_dir is not None else None
    if options.cache_dir is None or identity is None:
        return reading.in_memory()
    key = _cache_key(identity, encoder, options)
    found = cache.find(options.cache_dir, key, _from_cache)
    if found is not None:
        return found
    try:
        return reading.on_disk(options.cache_dir, key)
    except OSError as error:  # disk full, or read-only: go on without the cache
        made = reading.in_memory()
        made.notes.append(f"tokenized rows are not kept for the next run: {error.strerror or error}")
        return made


def _cache_key(identity: str, encoder: Encoder, options: DataOptions) -> str:
    decides = [options.mask_prompt, options.max_seq_length, options.skip_bad_rows, asdict(options.features)]
    facts = [cache.FORMAT, identity, encoder.identity(), decides]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _from_cache(header: Mapping[str, Any], splits: Mapping[str, Rows]) -> Dataset:
    if fingerprint_of(splits) != header["fingerprint"]:
        raise ValueError("damaged")
    counts = {split: Counts(**values) for split, values in header["counts"].items()}
    problems = Problems(**header["problems"])
    return Dataset(splits, header["fingerprint"], list(header["notes"]), counts, problems, from_cache=True)


def _require(made: Dataset, source: Source, options: DataOptions) -> None:
    """Refuse a data set that lacks a split which is needed, with the reason."""
    for split in options.need:
        if split in made.splits:
            continue
        counts = made.counts.get(split, Counts())
        name = harmless(source.name, 200)
        if counts.bad:
            raise made.problems.error(name)
        if counts.dropped:
            raise DataError(
                f"{name} has no rows for {split}: {counted(counts.dropped, 'row')} with all targets beyond "
                f"--max-seq-length {options.max_seq_length}; raise it, or shorten the prompts."
            )
        raise DataError(f"{name} has no rows for {split}: the file is empty. Put one row on each line.")
