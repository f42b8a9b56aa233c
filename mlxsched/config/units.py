"""Sizes, durations and percentages as people write them: ``6GB``, ``10m``, ``20%``."""

from __future__ import annotations

import math
import re
from typing import overload

_BYTES = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BYTES |= {f"{unit}B": size for unit, size in _BYTES.items() if len(unit) == 1 and unit != "B"}
_BYTES |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_LEAST = 10**6  # bytes: no run takes fewer
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"


def parse_size(value: object) -> object:
    """A size in bytes; a value that is not text is returned unchanged.

    >>> parse_size("6GB"), parse_size("1.5 GiB"), parse_size(100)
    (6000000000, 1610612736, 100)
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(rf"\s*{_NUMBER}\s*([a-zA-Z]*)\s*", value)
    size = float(found[1]) * _BYTES.get(found[2].upper(), math.inf) if found else math.inf
    if not math.isfinite(size):
        raise ValueError("must be a size such as 6GB, 512MB or 4GiB")
    return int(size)


def parse_memory(value: object) -> object:
    """`parse_size` for the memory of a run: a small number written without a unit was meant in another one."""
    size = parse_size(value)
    if (
        isinstance(value, str)
        and isinstance(size, int)
        and 0 < size < _LEAST
        and not value.strip()[-1].isalpha()
    ):
        raise ValueError("must have a unit, as in 6GB or 512MB, since it would be bytes")
    return size


@overload
def parse_duration(value: str) -> float:
    """A duration written as text."""


@overload
def parse_duration(value: object) -> object:
    """A value of any type, as a validator receives it."""


def parse_duration(value: object) -> object:
    """A duration in seconds; a value that is not text is returned unchanged.

    >>> parse_duration("10m"), parse_duration("1h 30 m"), parse_duration("45"), parse_duration(2.5)
    (600.0, 5400.0, 45.0, 2.5)
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(_NUMBER, text):
        return float(text)
    if not re.fullmatch(rf"(?:{_NUMBER}\s*[smhd]\s*)+", text):
        raise ValueError("must be a duration such as 90s, 10m or 1h30m")
    return float(
        sum(float(count) * _SECONDS[unit] for count, unit in re.findall(rf"{_NUMBER}\s*([smhd])", text))
    )


def parse_percentage(value: object) -> object:
    """A share between 0 and 1; a value that is not text is returned unchanged.

    >>> parse_percentage("20%"), parse_percentage(0.2)
    (0.2, 0.2)
    """
    if not isinstance(value, str):
        return value
    found = re.fullmatch(rf"\s*{_NUMBER}\s*(%?)\s*", value)
    if not found:
        raise ValueError("must be a percentage such as 20%")
    return float(found[1]) / (100 if found[2] else 1)
