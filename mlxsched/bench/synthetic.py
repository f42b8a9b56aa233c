"""Rows of random tokens whose lengths are those of typical instruct data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mlxsched.data import Dataset
from mlxsched.data.dataset import fingerprint_of
from mlxsched.data.rows import Rows, rows_in_memory
from mlxsched.errors import UsageError

PREFIX = "synthetic:"
_TOKENS = 256  # ids that every vocabulary has; which they are makes no difference to speed or memory
_NORMAL_P95 = 1.6448536269514722


@dataclass(frozen=True)
class LogNormal:
    """Lengths that are log-normal with this median and 95th percentile; the last ``targets`` of a row is scored."""

    median: float = 112
    p95: float = 524
    targets: float = 0.4
    shortest: int = 8
    longest: int = 2048


def is_synthetic(source: str) -> bool:
    """Whether ``source`` names rows that are made here."""
    return source.startswith(PREFIX)


def synthetic_dataset(source: str, count: int, *, seed: int = 0, longest: int = 2048) -> Dataset:
    """The data set that ``source`` names (``synthetic:lognormal``), ``count`` rows of it to train on."""
    if source != f"{PREFIX}lognormal":
        raise UsageError(f"no synthetic data set '{source}'; the only one is {PREFIX}lognormal.")
    rows = lognormal_rows(count, LogNormal(longest=longest), seed=seed)
    return Dataset({"train": rows}, fingerprint_of({"train": rows}))


def lognormal_rows(count: int, mix: LogNormal = LogNormal(), *, seed: int = 0) -> Rows:
    """``count`` rows of random tokens.

    >>> lengths = lognormal_rows(2000).lengths
    >>> bool(100 < np.median(lengths) < 125)
    True
    """
    draw = np.random.default_rng(seed)
    sigma = math.log(mix.p95 / mix.median) / _NORMAL_P95
    lengths = np.exp(draw.normal(math.log(mix.median), sigma, count)).round().astype(int)
    lengths = lengths.clip(mix.shortest, mix.longest)
    first = [length - max(round(mix.targets * length), 1) for length in lengths]
    return rows_in_memory(
        (draw.integers(0, _TOKENS, length, dtype=np.int32), np.arange(length) >= start)
        for length, start in zip(lengths, first, strict=True)
    )


def picked_rows(rows: Rows, count: int, *, seed: int = 0) -> Rows:
    """``count`` of ``rows``, drawn at random, each at most once."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows_in_memory(rows[int(index)] for index in chosen)
