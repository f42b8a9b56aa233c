"""Reading JSON that may have been written by a stranger, damaged by a crash, or edited by hand."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlxsched.errors import UserError

LARGEST = 16 * 1024 * 1024  # bytes; a run.json with a plan and a config is some 10 kB


@contextlib.contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into a `UserError` that names `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def open_plain_file(path: Path) -> int:
    """Open a regular file for reading. A link, a pipe or a device is refused: it could lead elsewhere or never end."""
    with reading_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path} is not a regular file. Remove it.")
    return descriptor


def read_object(path: Path, *, largest: int = LARGEST) -> dict[str, object]:
    """The JSON object in the file `path`.

    Raises `UserError` for a file that cannot be read, is not a regular file, has more than `largest` bytes, is not
    UTF-8 or not JSON (with line and column), is nested too deeply, or holds anything but an object.
    """
    with open(open_plain_file(path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > largest:
            raise UserError(
                f"{path} has {size:,} bytes; at most {largest:,} are read. It is damaged, or not from mlxsched."
            )
        content = file.read()
    value = _parse(path, content)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a JSON object; got {type(value).__name__}.")
    return value


def is_count(value: object) -> bool:
    """Whether `value` is a whole number from 0 on that JSON holds exactly."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def shortened(value: object) -> str:
    """A short form of a foreign value for a message; ``repr`` of an integer of 5,000 digits would raise.

    >>> shortened(10**5000), shortened("x" * 100)
    ('a number with too many digits', "'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...")
    """
    if isinstance(value, int) and abs(value) >= 10**30:
        return "a number with too many digits"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def finite_number(value: object) -> float | None:
    """`value` as a float when it is a finite number, else None; JSON has integers of any size.

    >>> finite_number(3), finite_number("3"), finite_number(True), finite_number(10**400)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def finite(value: object) -> object:
    """`value` with every non-finite float, at any depth, replaced by None: JSON has no NaN.

    >>> finite({"loss": float("nan"), "rates": [1e-4, float("inf")]})
    {'loss': None, 'rates': [0.0001, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


def _parse(path: Path, content: bytes) -> object:
    try:
        return json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}:{error.colno} is not JSON: {error.msg}.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, an integer of too many digits, endless nesting
        raise UserError(f"{path} cannot be read as JSON: {error}.") from error
