"""Counts over the columns of many rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlxsched.data.rows import _BLOCK, COLUMNS, Rows, rows_in_memory


def test_targets_are_counted_in_blocks_of_rows() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 4, 2 * _BLOCK + 5)
    rows = rows_in_memory((np.zeros(length, np.int32), draw.random(length) < 0.5) for length in lengths)
    assert rows.target_counts.tolist() == [int(row.targets.sum()) for row in rows]
    assert rows_in_memory([]).target_counts.tolist() == []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_pass_over_mapped_rows_gives_their_memory_back(tmp_path: Path) -> None:
    def mapped() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))

    columns = dict(rows_in_memory([]).columns)
    for name, items in (("tokens", 2**22), ("targets", 2**22)):
        (tmp_path / name).write_bytes(bytes(items * COLUMNS[name].itemsize))
        columns[name] = np.memmap(tmp_path / name, COLUMNS[name], mode="r").view(np.ndarray)
    rows, before = Rows(columns), mapped()
    digest = rows.digest()
    assert rows.scored == 0
    assert mapped() - before < 4000  # kB, of 20 MB
    int(columns["tokens"].sum())
    assert mapped() - before > 15000
    assert rows.digest() == digest
