"""CSV files of spreadsheets and databases: any of the usual delimiters, and one problem a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlxsched.data.options import Features
from mlxsched.data.problems import RowProblem
from mlxsched.data.sources.csv_file import records


def read(path: Path, content: str, encoding: str = "utf-8") -> list[tuple[int, Any]]:
    path.write_bytes(content.encode(encoding))
    return [(line, data) for line, data, _ in records(path, Features())]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_the_delimiter_is_taken_from_the_header(delimiter: str, quote: str, tmp_path: Path) -> None:
    header = delimiter.join(f"{quote}{name}{quote}" for name in ("prompt", "completion", "note"))
    row = delimiter.join(f'"{cell}"' for cell in ("one, two; three | four\tfive", "=SUM(A1;B1)", 'a "" b'))
    (found,) = read(tmp_path / "rows.csv", f"\ufeff\n{header}\r\n{row}\r\n")
    cells = {"prompt": "one, two; three | four\tfive", "completion": "=SUM(A1;B1)", "note": 'a " b'}
    assert found == (3, cells)


@pytest.mark.parametrize("header", ["text", '"text"', '"text"\n'])
def test_one_column(header: str, tmp_path: Path) -> None:
    assert read(tmp_path / "rows.csv", f'{header}\n"a; b, c"\n')[0][1] == {"text": "a; b, c"}


def test_known_names_count_more_than_the_number_of_columns(tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", "prompt;completion;a,b,c,d,e\n1;2;3\n")
    assert found[0][1] == {"prompt": "1", "completion": "2", "a,b,c,d,e": "3"}


def test_cells_that_hold_json(tmp_path: Path) -> None:
    found = read(tmp_path / "rows.csv", 'conversations;tools\n"[{""from"": ""human""}]";"[]"\n')
    assert found[0][1] == {"conversations": [{"from": "human"}], "tools": []}


def test_lines_of_unicode_do_not_end_a_row(tmp_path: Path) -> None:
    (found,) = read(tmp_path / "rows.csv", "text\nline\u2028two\u0085three\n")
    assert found == (2, {"text": "line\u2028two\u0085three"})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ('prompt;completion\n"a"x;b\n', "not CSV with ';' between cells"),
        ("prompt;completion\na;b;c\n", "3 cells, but the header has 2"),
    ],
)
def test_problems_name_the_delimiter(content: str, what: str, tmp_path: Path) -> None:
    ((line, problem),) = read(tmp_path / "rows.csv", content)
    assert line == 2
    assert isinstance(problem, RowProblem)
    assert what in str(problem)


def test_utf16_is_named(tmp_path: Path) -> None:
    ((_, problem),) = read(tmp_path / "rows.csv", "text\na\n", "utf-16")
    assert "UTF-16" in str(problem)
