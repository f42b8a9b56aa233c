"""Progress of tokenizing on stderr."""

from __future__ import annotations

import pytest

from mlxsched.cli import rows_read


def test_rows_share_and_time_left_are_said_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 130.0, 140.0, 141.0, 146.0])  # the model takes 30 s to load
    monkeypatch.setattr(rows_read.time, "monotonic", lambda: next(times))
    said = rows_read.RowsRead()
    for rows, share in ((512, 0.01), (10_240, 0.26), (11_000, 0.3), (20_480, None)):
        said(rows, share)
    lines = ["tokenized 512 rows, 1%", "tokenized 10,240 rows, 26%, about 30 s left", "tokenized 20,480 rows"]
    assert capsys.readouterr().err.splitlines() == lines
