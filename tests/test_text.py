"""Messages count in English: in the plan and in what a training says."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.bundled import data_path
from mlxsched.cli.main import main
from mlxsched.text import counted, number

WRONG = re.compile(r"(?<![\d.,])1 (updates|epochs|rows|layers|steps|tokens|evaluations)\b")


def test_only_one_is_singular():
    shown = [counted(number, "row") for number in (0, 1, 2, 1.0, 1.5, 0.5)]
    assert shown == ["0 rows", "1 row", "2 rows", "1 row", "1.5 rows", "0.5 rows"]


def test_a_run_of_one_update_is_told_in_the_singular(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    line = (data_path("excel") / "train.jsonl").read_text(encoding="utf-8").splitlines()[0] + "\n"
    for name in ("train", "valid"):
        (tmp_path / "data" / f"{name}.jsonl").write_text(line)
    flags = ["--data", "data", "--iters", "1", "--num-layers", "1", "--batch-size", "1", "--run-dir", "run"]
    assert main(["train", *flags, "--warmup", "0"]) == 0
    out, err = capsys.readouterr()
    assert "1 update of 1 row: 1 epoch of 1" in err
    assert "1 update, " in out
    assert not WRONG.search(out + err), out + err


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e30, max_value=1e30))
def test_a_number_reads_back_within_what_it_shows(value):
    assert float(number(value)) == pytest.approx(value, rel=6e-4, abs=1e-300)
