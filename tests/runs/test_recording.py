"""Reading a run's records as columns, at once and while they are written."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest

from mlxsched.errors import DataError, UsageError
from mlxsched.runs.events import Evaluated, Notice, UpdateMade
from mlxsched.runs.metrics import MetricsWriter, read_records
from mlxsched.runs.recording import read_recording


def update(index: int, loss: float = 2.0, **more: object) -> UpdateMade:
    return UpdateMade(index, loss, 1e-4 * (index + 1), 0.5, 10, 9, 100.0, 0.1, 0.25, loss, **more)


def record(directory: Path, *events: object) -> Path:
    directory.mkdir(exist_ok=True)
    with MetricsWriter(directory / "metrics.jsonl") as writer:
        for event in events:
            writer.record(event)
    return directory


def test_columns_hold_every_field_with_its_type(tmp_path):
    recording = read_recording(
        record(tmp_path / "a", Evaluated(0, 3.5, 33.0, True, 0.1), update(0), update(1, math.nan))
    )
    assert recording.name == "a"
    assert recording.train["update"].tolist() == [0, 1]
    assert recording.train["update"].dtype == recording.train["tokens"].dtype == np.int64
    assert recording.train["loss"].dtype == np.float64 and math.isnan(recording.train["loss"][1])
    assert recording.train["applied"].dtype == np.bool_
    assert recording.evaluations["perplexity"].tolist() == [33.0] and recording.evaluations["best"][0]
    assert recording.train.curve("loss").updates == [0]
    assert recording.train.curve("loss").values == [2.0]


def test_no_file_and_no_updates(tmp_path):
    recording = read_recording(tmp_path)
    assert (len(recording.train), len(recording.evaluations), recording.notices) == (0, 0, ())
    with pytest.raises(UsageError, match="no recorded learning rate"):
        recording.require_updates()


def test_following_reads_only_what_was_appended(tmp_path, monkeypatch):
    recording = read_recording(record(tmp_path / "a", update(0)))
    assert recording.follow() is recording
    record(tmp_path / "a", update(1), Notice(1, "spike", "x"))
    starts = []

    def read(path, start):
        starts.append(start)
        return read_records(path, start)

    monkeypatch.setattr("mlxsched.runs.recording.read_records", read)
    followed = recording.follow()
    assert starts == [recording.position.offset] and starts[0] > 0
    assert followed.events == read_recording(tmp_path / "a").events
    assert followed.train["update"].tolist() == [0, 1] and followed.notices[0].code == "spike"


def test_following_a_run_that_began_later(tmp_path):
    recording = read_recording(tmp_path)
    record(tmp_path, update(0))
    assert recording.follow().train["update"].tolist() == [0]


def test_a_torn_line_is_read_once_it_is_whole(tmp_path):
    path = record(tmp_path / "a", update(0), update(1)) / "metrics.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    recording = read_recording(tmp_path / "a")
    assert recording.train["update"].tolist() == [0]
    path.write_bytes(content)
    assert recording.follow().train["update"].tolist() == [0, 1]


@pytest.mark.parametrize("grown", [0, 1, 5])
def test_a_file_that_was_cut_back_is_read_again(tmp_path, grown):
    """A resume cuts to a checkpoint and writes on: shorter, as long, or longer than what was read."""
    record(tmp_path / "a", *(update(index) for index in range(4)))
    recording = read_recording(tmp_path / "a")
    with MetricsWriter(tmp_path / "a" / "metrics.jsonl") as writer:
        writer.truncate_after(1)
        for index in range(2, 2 + grown):
            writer.record(update(index, loss=1.5))
    followed = recording.follow()
    assert followed.train["loss"].tolist() == [2.0] * 2 + [1.5] * grown
    assert followed.events == read_recording(tmp_path / "a").events


def test_a_wrong_value_is_named_with_its_line(tmp_path):
    record(tmp_path / "a", update(0))
    with open(tmp_path / "a" / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "update": 1, "loss": "low", "lr": 1e-4}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl:2: 'loss' must be a number; got 'low'"):
        read_recording(tmp_path / "a")


def test_a_number_of_400_digits_is_refused(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"kind": "train", "update": 1, "loss": 1' + "0" * 400 + ', "lr": 1e-4}\n'
    )
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: 'loss' is too large"):
        read_recording(tmp_path)


def test_a_sparse_file_without_lines_is_refused_and_not_read_into_memory(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open(path, "wb") as file:
        os.truncate(file.fileno(), 6 * 10**9)
    with pytest.raises(DataError, match="metrics.jsonl:1 is not a record"):
        read_recording(tmp_path)
    with pytest.raises(DataError, match="more than 16 MiB"):
        MetricsWriter(path)
