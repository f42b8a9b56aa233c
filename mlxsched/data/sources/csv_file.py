"""Read a CSV file with a header as records of strings.

Spreadsheets in many languages write semicolons, and databases export tabs or bars, so the delimiter is taken from
the header line. `csv.Sniffer` is not used: it guesses from the frequency of characters in the cells, which are prose
here, and takes the comma of a sentence for a delimiter.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem
from mlxsched.data.sources.jsonl import MAX_LINE_BYTES, parse

DELIMITERS = (",", ";", "\t", "|")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


def records(path: Path, features: Features) -> Iterator[tuple[int, dict[str, Any] | RowProblem, str]]:
    """Line number, record (or why there is none) and an excerpt of each row.

    The column of the chat feature and the columns ``tools`` and ``conversations`` hold JSON.
    """
    with path.open("rb") as raw:
        if raw.read(2) in _UTF16_MARKS:
            yield 1, RowProblem("the file is UTF-16; save it as UTF-8"), ""
            return
    csv.field_size_limit(MAX_LINE_BYTES)
    # Bytes that are not UTF-8 become lone surrogates, which the check of the fields refuses, row by row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from _rows(file, _delimiter(file, features), (features.chat, "tools", "conversations"))


def _delimiter(file: TextIO, features: Features) -> str:
    """The delimiter that finds the most columns with a known name in the header, or else the most columns."""
    start = "\n"
    while start and not start.strip():
        start = file.readline(MAX_LINE_BYTES)
    file.seek(0)
    known = {*vars(features).values(), "instruction", "output", "conversations", "tools"}

    def score(delimiter: str) -> tuple[int, int]:
        try:
            columns = next(csv.reader([start], delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len(known.intersection(columns)), len(columns)

    return max(DELIMITERS, key=score)  # max keeps the first of equals: the comma


def _rows(
    file: TextIO, delimiter: str, json_columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any] | RowProblem, str]]:
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield line, RowProblem(f"not CSV with {delimiter!r} between cells: {error}"), ""
            return  # where the next row begins can't be known
        if cells is None:
            return
        if not any(cells):
            continue
        if header is None:
            header = cells
            continue
        yield line, _record(header, cells, json_columns), delimiter.join(cells)[:200]


def _record(
    header: list[str], cells: list[str], json_columns: tuple[str, ...]
) -> dict[str, Any] | RowProblem:
    if len(set(header)) < len(header):
        return RowProblem("two columns have the same name in the header")
    if len(cells) != len(header):
        return RowProblem(f"{len(cells)} cells, but the header has {len(header)}")
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in json_columns:
        if name in record:
            try:
                record[name] = parse(f'{{"value": {record[name] or "null"}}}'.encode())["value"]
            except (RowProblem, UnicodeEncodeError) as error:
                return RowProblem(f"the cell {json.dumps(name)} must hold JSON ({error})")
    return record
