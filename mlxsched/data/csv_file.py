"""Read a CSV file with a header as records of strings."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlxsched.data.jsonl import MAX_LINE_BYTES, parse
from mlxsched.data.problems import RowProblem


def records(path: Path, chat_feature: str) -> Iterator[tuple[int, dict[str, Any] | RowProblem, str]]:
    """Line number, record (or why there is none) and an excerpt of each row.

    A column named as the chat feature holds JSON, as does one named ``tools``.
    """
    csv.field_size_limit(MAX_LINE_BYTES)
    # Bytes that are not UTF-8 become lone surrogates, which the check of the fields then refuses by row.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, strict=True)
        header: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield line, RowProblem(f"not CSV: {error}"), ""
                return  # there is no telling where the next row begins
            if cells is None:
                return
            if not any(cells):
                continue
            if header is None:
                header = cells
                continue
            yield line, _record(header, cells, (chat_feature, "tools")), ",".join(cells)[:200]


def _record(
    header: list[str], cells: list[str], json_columns: tuple[str, ...]
) -> dict[str, Any] | RowProblem:
    if len(set(header)) < len(header):
        return RowProblem("two columns of the header have the same name")
    if len(cells) != len(header):
        return RowProblem(f"{len(cells)} cells under a header of {len(header)}")
    record: dict[str, Any] = dict(zip(header, cells, strict=True))
    for name in json_columns:
        if name in record:
            try:
                record[name] = parse(f'{{"value": {record[name] or "null"}}}'.encode())["value"]
            except (RowProblem, UnicodeEncodeError) as error:
                return RowProblem(f"the cell {json.dumps(name)} must hold JSON ({error})")
    return record
