"""Progress of tokenizing on stderr."""

from __future__ import annotations

import pytest

from mlxsched.cli import rows_read


def test_rows_share_and_time_left_are_said_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([100.0, 101.0, 120.0, 121.0, 126.0])
    monkeypatch.setattr(rows_read.time, "monotonic", lambda: next(times))
    said = rows_read.RowsRead()
    for rows, share in ((512, 0.01), (10_240, 0.25), (11_000, 0.3), (20_480, None)):
        said(rows, share)
    lines = ["tokenized 10,240 rows, 25%, about 1.0 min left", "tokenized 20,480 rows"]
    assert capsys.readouterr().err.splitlines() == lines
