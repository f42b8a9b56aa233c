from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.errors import UserError
from mlxsched.runs.json_file import read_object


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{\n  "a": 1,\n}', r"run.json:[23]:\d+ is not JSON"),
        (b"", r"run.json:1:1 is not JSON"),
        (b'{"a": "\xff"}', r"cannot be read as JSON: .*utf-8"),
        (b"[" * 100_000, r"cannot be read as JSON: .*(recursion|overflow)"),
        (b'{"a": ' + b"9" * 10_000 + b"}", r"cannot be read as JSON: .*digits"),
        (b"[1]", r"must hold a JSON object; got list"),
        (b'{"a": "' + b"x" * 2000 + b'"}', r"has 2,009 bytes; at most 1,000 are read"),
    ],
)
def test_what_is_not_a_json_object_is_named(tmp_path, content, message):
    (tmp_path / "run.json").write_bytes(content)
    largest = 1000 if len(content) == 2009 else 1_000_000
    with pytest.raises(UserError, match=message):
        read_object(tmp_path / "run.json", largest=largest)


@given(st.binary(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_bytes_give_an_object_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_bytes(content)
    try:
        assert isinstance(read_object(path), dict)
    except UserError as error:
        assert "any.json" in str(error)


def test_only_regular_files_are_opened(tmp_path):
    (tmp_path / "real").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    os.mkfifo(tmp_path / "pipe")
    assert read_object(tmp_path / "real") == {}
    for name, message in [("link", "Cannot read"), ("pipe", "not a regular file"), ("none", "No such file")]:
        with pytest.raises(UserError, match=message):
            read_object(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        read_object(tmp_path)
