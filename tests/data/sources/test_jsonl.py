"""Bytes in, one record or one problem a line out; never anything else."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.data.problems import RowProblem, harmless
from mlxsched.data.sources import jsonl


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "a"', "not JSON: Expecting ',' delimiter at column 13"),
        (b'{"text": "a"} {}', "Extra data"),
        (b"[1, 2]", "must be a JSON object, not a list"),
        (b'[{"text": "a"},', "a JSON array; write one object per line"),
        (b"3", "not a number"),
        (b"null", "not null"),
        (b'"a"', "not a string"),
        (b'{"text": NaN}', "NaN is not a JSON value"),
        (b'{"a": {"b": -Infinity}}', "-Infinity is not a JSON value"),
        (b'{"text": "a", "text": "b"}', 'key "text" appears twice'),
        (b'{"text": "\xff"}', "not UTF-8 (byte 0xff at column 11)"),
        (b"\0\0\0\0", "NUL bytes"),
        (b'{"text": "a\tb"}', "Invalid control character"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not a usable JSON value"),
    ],
)
def test_what_is_wrong_with_a_line_is_said(line: bytes, what: str) -> None:
    with pytest.raises(RowProblem) as caught:
        jsonl.parse(line)
    assert what in str(caught.value)


def test_marks_line_ends_and_blank_lines_are_no_problem() -> None:
    file = io.BytesIO(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n  \n{"text": "b"}\n\n\n')
    found = [(number, jsonl.parse(line)) for number, line in jsonl.lines(file)]
    assert found == [(1, {"text": "a"}), (4, {"text": "b"})]


def test_only_a_line_feed_ends_a_row() -> None:
    """U+2028, U+2029 and U+0085 end a line for `str.splitlines`, and may stand in a JSON string."""
    row = {"text": "one\u2028two\u2029three\u0085four"}
    file = io.BytesIO(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    assert [(number, jsonl.parse(line)) for number, line in jsonl.lines(file)] == [(1, row)]


def test_a_file_in_utf16_is_named_as_such() -> None:
    ((number, problem),) = jsonl.lines(io.BytesIO('{"text": "a"}\n{"text": "b"}'.encode("utf-16")))
    assert number == 1
    assert "UTF-16" in str(problem)


def test_a_huge_line_is_left_out_without_holding_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 100)
    file = io.BytesIO(b'{"text": "a"}\n' + b"x" * 1050 + b'\n{"text": "b"}\n' + b"y" * 150)
    found = list(jsonl.lines(file))
    assert [number for number, _ in found] == [1, 2, 3, 4]
    assert [isinstance(line, RowProblem) for _, line in found] == [False, True, False, True]


@settings(max_examples=int(os.environ.get("MLXSCHED_FUZZ", "150")), deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=100).map(lambda s: s.encode("utf-8", "surrogatepass"))
    )
)
def test_any_bytes_are_records_or_problems(data: bytes) -> None:
    for _, line in jsonl.lines(io.BytesIO(data)):
        assert isinstance(line, (bytes, RowProblem))
        if isinstance(line, bytes):
            try:
                assert isinstance(jsonl.parse(line), dict)
            except RowProblem as problem:
                assert str(problem)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_harmless_text_is_one_short_printable_line(text: str) -> None:
    shown = harmless(text)
    assert shown.isprintable()
    assert len(shown) <= 83


@pytest.mark.parametrize(
    "line",
    [
        '{"text": "a", "text": "b"}', '{"text" : "a", "text": "b"}', '{"text":"\\":", "text" : "b"}', '{"text":"a","text"\t:"b"}',
        '{"messages": [{"role": "user", "role": "user"}]}', '{"a": "\\"b\\": c", "a"  :"d"}', '{"text":"a","text"\r:"b"}',
    ],
)  # fmt: skip
def test_a_key_that_appears_twice_is_found_in_plain_rows_too(line: str) -> None:
    with pytest.raises(RowProblem, match="appears twice"):
        jsonl.parse(line.encode())


texts = st.text(st.sampled_from('ab": \\{}[],\t\n\u00e9'), max_size=8)
leaves = st.one_of(
    texts, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.none(), st.booleans()
)
objects = st.dictionaries(
    texts, st.one_of(leaves, st.lists(st.dictionaries(texts, leaves, max_size=3), max_size=3))
)


@settings(deadline=None)
@given(objects, st.booleans(), st.sampled_from([(", ", ": "), (",", ":"), (" , ", " : ")]))
def test_objects_are_what_the_json_module_makes_of_them(
    found: dict[str, object], ascii_only: bool, separators: tuple[str, str]
) -> None:
    line = json.dumps(found, ensure_ascii=ascii_only, separators=separators)
    assert repr(jsonl.parse(line.encode())) == repr(json.loads(line))
