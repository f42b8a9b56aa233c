from __future__ import annotations

import json
import os
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.errors import DataError, UserError
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.metrics import MetricsWriter, format_record, read_metrics

records = st.builds(
    lambda kind, update, loss, note: {"kind": kind, "update": update, "loss": loss, "note": note},
    st.sampled_from(["train", "eval", "event"]),
    st.integers(0, 50),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)
growing = st.lists(records, max_size=12).map(lambda found: sorted(found, key=lambda record: record["update"]))


def write(path: Path, found: list[dict]) -> list[int]:
    """Write the records and return the positions after each."""
    with MetricsWriter(path) as metrics:
        positions = [metrics.position]
        for record in found:
            metrics.write(record)
            positions.append(metrics.position)
    return positions


def train(update: int, **more: object) -> dict[str, object]:
    return {"kind": "train", "update": update, **more}


@given(growing)
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read(tmp_path_factory, found):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    assert write(path, found)[-1] == path.stat().st_size
    assert read_metrics(path) == found


@given(growing, st.data())
@settings(max_examples=60, deadline=None)
def test_a_file_cut_anywhere_gives_the_whole_records_before_the_cut(tmp_path_factory, found, data):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    positions = write(path, found)
    cut = data.draw(st.integers(0, positions[-1]))
    os.truncate(path, cut)
    whole = sum(position <= cut for position in positions[1:])
    assert read_metrics(path) == found[:whole]
    with MetricsWriter(path) as metrics:
        metrics.write(train(99))
    assert read_metrics(path) == [*found[:whole], train(99)]


@given(growing, st.binary(max_size=30))
@settings(max_examples=60, deadline=None)
def test_garbage_at_the_end_is_left_out(tmp_path_factory, found, garbage):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    write(path, found)
    with open(path, "ab") as file:
        file.write(b"\x00" + garbage.replace(b"\n", b" "))
    assert read_metrics(path) == found


@given(growing, st.integers(0, 50))
@settings(max_examples=60, deadline=None)
def test_a_cut_after_an_update_keeps_exactly_what_came_up_to_it(tmp_path_factory, found, update):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    write(path, found)
    with MetricsWriter(path) as metrics:
        metrics.truncate_after(update)
        assert metrics.position == path.stat().st_size
        metrics.write(train(99))
    assert read_metrics(path) == [*(record for record in found if record["update"] <= update), train(99)]


@given(growing, st.data())
@settings(max_examples=40, deadline=None)
def test_a_cut_at_a_position_gives_the_very_bytes_of_then(tmp_path_factory, found, data):
    path = tmp_path_factory.mktemp("m") / "metrics.jsonl"
    positions = write(path, found)
    content = path.read_bytes()
    kept = data.draw(st.integers(0, len(found)))
    with MetricsWriter(path) as metrics:
        metrics.rewind(positions[kept], update=99)
        for record in found[kept:]:
            metrics.write(record)
    assert path.read_bytes() == content


def test_a_position_inside_a_record_is_refused_and_rewind_falls_back_to_the_update(tmp_path):
    path = tmp_path / "metrics.jsonl"
    positions = write(path, [train(1), train(2), train(3)])
    with MetricsWriter(path) as metrics:
        for position in (-1, positions[2] - 1, positions[3] + 1):
            with pytest.raises(ValueError, match="not the end of a record"):
                metrics.truncate_to(position)
        metrics.rewind(positions[2] - 1, update=2)
    assert read_metrics(path) == [train(1), train(2)]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [train(1, loss=float("nan"), norms=[1.0, float("inf")], more={"x": float("-inf")})])
    assert read_metrics(path) == [train(1, loss=None, norms=[1.0, None], more={"x": None})]
    assert "NaN" not in path.read_text()


@pytest.mark.parametrize(
    "record", [{}, {"kind": "train"}, {"kind": "other", "update": 1}, train(-1), train(True)]
)
def test_a_record_without_kind_and_update_is_refused(record):
    with pytest.raises(ValueError, match="kind of train, eval, event"):
        format_record(record)


def test_a_bad_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(
        format_record(train(1)) + b'{"kind": "tr\x1b[31m' + b"x" * 200 + b"\n" + format_record(train(2))
    )
    with pytest.raises(
        DataError, match=r"metrics.jsonl:2 is not a record.*\\x1b.*\.\.\..*Remove the line"
    ) as caught:
        read_metrics(path)
    assert "\x1b" not in str(caught.value) and len(str(caught.value)) < 300


def test_no_file_means_no_records_and_a_link_is_refused(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    (tmp_path / "real").write_bytes(format_record(train(1)))
    (tmp_path / "metrics.jsonl").symlink_to(tmp_path / "real")
    with pytest.raises(UserError):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(StorageError):
        MetricsWriter(tmp_path / "metrics.jsonl")


def test_a_pipe_in_place_of_the_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match="not a regular file"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_kill_at_any_time_leaves_whole_records_in_order(tmp_path, killed_after, moments):
    path = tmp_path / "metrics.jsonl"

    def work() -> None:
        with MetricsWriter(path) as metrics:
            for update in range(len(read_metrics(path)), 1000):
                metrics.write(train(update, text="x" * 5000))

    for moment in islice(moments, 15):
        killed_after(work, moment)
        found = read_metrics(path)
        assert [record["update"] for record in found] == list(range(len(found)))
        if len(found) > 500:
            path.unlink()


def test_a_full_disk_loses_only_the_new_record(small_disk):
    path = small_disk / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(train(1))
        with pytest.raises(StorageError, match="No space left"):
            metrics.write(train(2, text="x" * 1_000_000))
        assert read_metrics(path) == [train(1)]
        metrics.write(train(3))
        metrics.sync()
    assert read_metrics(path) == [train(1), train(3)]
    assert path.read_bytes().endswith(b"\n")


def test_a_deleted_run_is_noticed_at_a_sync(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path) as metrics:
        metrics.write(train(1))
        path.unlink()
        with pytest.raises(StorageError, match="removed or renamed"):
            metrics.sync()
        path.write_text("")
        with pytest.raises(StorageError, match="replaced by another file"):
            metrics.sync()


def test_a_reader_beside_the_writer_sees_only_whole_records(tmp_path, watching):
    path = tmp_path / "metrics.jsonl"

    def work() -> None:
        with MetricsWriter(path) as metrics:
            for update in range(300):
                metrics.write(train(update, text="x" * 3000))

    def look() -> None:
        found = read_metrics(path)
        assert [record["update"] for record in found] == list(range(len(found)))

    assert watching(work, look) > 0
    assert len(path.read_text().splitlines()) == 300
    assert json.loads(path.read_text().splitlines()[-1])["update"] == 299
