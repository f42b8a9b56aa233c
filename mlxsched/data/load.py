"""Load a data set by name, from the cache if it is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlxsched.data import cache
from mlxsched.data.dataset import Counts, Dataset, fingerprint_of
from mlxsched.data.encode import Encoder
from mlxsched.data.formats import check_record
from mlxsched.data.joining import with_joined_turns, with_offer
from mlxsched.data.options import DataOptions
from mlxsched.data.problems import Problems, RowProblem, harmless
from mlxsched.data.reading import OnRows, Reader
from mlxsched.data.record import Source
from mlxsched.data.rows import Rows
from mlxsched.data.sources.open import open_source
from mlxsched.errors import DataError, UsageError
from mlxsched.text import counted


def load_dataset(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]],
    tokenizer: Any,
    options: DataOptions | None = None,
    *,
    progress: OnRows | None = None,
) -> Dataset:
    """Read and tokenize ``source``.

    Args:
        source: "excel" (bundled), a directory of {train,valid,test}.jsonl, a .jsonl or .csv file, the name of a data
            set on Hugging Face, or mlx-lm's ``hf_dataset`` block(s).
        tokenizer: mlx-lm's ``TokenizerWrapper``, or one of transformers.
        options: how to read and tokenize.
        progress: receives the number of rows read so far, and their share of the source (0 to 1, None if unknown).

    Raises:
        DataError: a split can't be used; names ``file:line`` of the first bad row of each kind, up to 20.
        UsageError: the maximum length is below 2.
    """
    options = options or DataOptions()
    if options.max_seq_length < 2:
        raise UsageError(f"--max-seq-length must be at least 2; got {options.max_seq_length}.")
    opened = open_source(source, options)
    dataset = _load(opened, Encoder(tokenizer, options.mask_prompt), options, progress)
    _require(dataset, opened, options)
    return with_joined_turns(dataset) if options.join_turns else with_offer(dataset)


def refuse_missing(
    source: str | Mapping[str, Any] | Sequence[Mapping[str, Any]], options: DataOptions
) -> None:
    """Refuse data that is not there, or whose first rows can't be used, without reading all of it.

    Raises:
        DataError: as `load_dataset` would.
    """
    opened = open_source(source, options)
    if options.skip_bad_rows:
        return
    problems, records = Problems(), opened.first_records()
    for record in records:
        try:
            check_record(record.parsed(), record.features, options.mask_prompt)
        except RowProblem as problem:
            problems.add(record.where, problem.what, problem.excerpt or record.excerpt)
    if problems.count:
        name = f"the first {len(records)} in {opened.name}"
        fix = options.bad_rows_fix(all_bad=problems.count == len(records))
        raise problems.error(name, f"{fix}. `mlxsched data check` checks all rows")


def _load(source: Source, encoder: Encoder, options: DataOptions, progress: OnRows | None) -> Dataset:
    reader = Reader(source, encoder, options, progress)
    identity = source.identity() if options.cache_dir is not None else None
    if options.cache_dir is None or identity is None:
        return reader.in_memory()
    key = _cache_key(identity, encoder, options)
    cached = cache.find(options.cache_dir, key, _from_cache)
    if cached is not None:
        return cached
    try:
        dataset = reader.on_disk(options.cache_dir, key)
    except OSError as error:  # the disk is full or read-only: continue without the cache
        dataset = reader.in_memory()
        dataset.notes.append(f"tokenized rows are not kept for the next run: {error.strerror or error}")
    dataset.notes.extend(reader.warnings)
    return dataset


def _cache_key(identity: str, encoder: Encoder, options: DataOptions) -> str:
    limits = [options.max_seq_length, options.max_positions]
    decides = [options.mask_prompt, *limits, options.skip_bad_rows, asdict(options.features)]
    facts = [cache.FORMAT, identity, encoder.identity(), decides]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _from_cache(header: Mapping[str, Any], splits: Mapping[str, Rows]) -> Dataset:
    origins = {split: rows.origin_digest() for split, rows in splits.items()}
    if fingerprint_of(splits) != header["fingerprint"] or origins != header["origins"]:
        raise ValueError("damaged")
    counts = {split: Counts(**values) for split, values in header["counts"].items()}
    problems = Problems(**header["problems"])
    return Dataset(splits, header["fingerprint"], list(header["notes"]), counts, problems, from_cache=True)


def _require(dataset: Dataset, source: Source, options: DataOptions) -> None:
    """Refuse a data set that lacks a needed split, with the reason."""
    for split in options.need:
        if split in dataset.splits:
            continue
        counts = dataset.counts.get(split, Counts())
        name = harmless(source.name, 200)
        if counts.bad:
            raise dataset.problems.error(name, options.bad_rows_fix(all_bad=True))
        if counts.dropped:
            raise DataError(
                f"{name} has no rows for {split}: {counted(counts.dropped, 'row')} with all targets beyond "
                f"{options.limit}. {options.limit_fix}, or shorten the prompts."
            )
        raise DataError(f"{name} has no rows for {split}: the file is empty. Put one row on each line.")
