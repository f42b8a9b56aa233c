"""Read JSON Lines from arbitrary bytes: one record or one problem a line, in bounded memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import orjson

from mlxsched.data.problems import RowProblem, type_name

MAX_LINE_BYTES = 4 * 2**20  # about a million tokens: far beyond any row that fits into memory
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes | RowProblem]]:
    """Number and bytes of each line that is not blank. A line above the limit is a problem, and is never held whole.

    Lines end at a line feed only: U+2028 and U+0085 are ordinary characters of a JSON string.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_UTF8_MARK)
        if len(line) > MAX_LINE_BYTES:
            _skip_line(file, line)
            yield number, RowProblem(f"the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
        elif number == 1 and line.startswith(_UTF16_MARKS):
            yield number, RowProblem("the file is UTF-16; save it as UTF-8")
            return
        elif line.strip():
            yield number, line.strip()


def _skip_line(file: BinaryIO, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = file.readline(MAX_LINE_BYTES)


def parse(line: bytes) -> dict[str, Any]:
    """The JSON object in ``line``; raises `RowProblem` for anything else.

    >>> parse(b'{"text": "a"}')
    {'text': 'a'}
    """
    simple = _simple(line)
    if simple is not None:
        return simple
    text = _decode(line)
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise RowProblem(_explain(error, text), text[max(error.pos - 40, 0) : error.pos + 40]) from None
    except RecursionError:
        raise RowProblem("nested too deeply") from None
    except ValueError as error:  # Python refuses integers of more than 4300 digits
        raise RowProblem(f"not a usable JSON value ({str(error).split(';')[0]})") from None
    if not isinstance(value, dict):
        raise RowProblem(f"must be a JSON object, not {type_name(value)}")
    return value


def _simple(line: bytes) -> dict[str, Any] | None:
    """The object in ``line`` if it holds strings and lists of objects of strings only, as nearly all rows do.

    orjson takes a tenth of the time of `json`. But it accepts a key that appears twice, and reads some numbers differently.
    """
    try:
        value = orjson.loads(line)
        keys = _count_keys(value)
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return None
    # Without white space before the colon, every key ends in `":`, so the count is too high if a key appears twice. Escaped
    # quotation marks in a string can only raise it as well: such a line is then left to `json`.
    once = keys == line.count(b'":') and b" :" not in line and b"\t" not in line and b"\r" not in line
    return value if once else None


def _count_keys(value: Any) -> int:
    """The number of keys in such an object; raises AttributeError or TypeError for any other value."""
    keys = len(value)
    for item in value.values():
        if type(item) is list:
            for part in item:
                keys += len(part)
                "".join(part.values())  # raises TypeError if one is not a string
        elif type(item) is not str:
            raise TypeError
    return keys


def _decode(line: bytes) -> str:
    if b"\0" in line:
        raise RowProblem("NUL bytes: the file was damaged, or is not UTF-8")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowProblem(f"not UTF-8 (byte 0x{line[error.start]:02x} at column {error.start + 1})") from None


def _explain(error: json.JSONDecodeError, text: str) -> str:
    if text.startswith("[") and error.lineno == 1:
        return "not JSON Lines: a JSON array; write one object per line"
    return f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}"


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowProblem(f"key {json.dumps(twice)} appears twice")
    return found


def _no_constant(name: str) -> Any:
    raise RowProblem(f"{name} is not a JSON value")
