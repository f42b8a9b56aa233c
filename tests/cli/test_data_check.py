"""``mlxsched data check``: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlxsched.bundled import model_path
from mlxsched.cli.data import command
from mlxsched.errors import ChecksFailed, DataError, ModelError

GOOD = [json.dumps({"prompt": f"row {i}", "completion": f"={i}"}) for i in range(12)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["check", *arguments])


def write(directory: Path, **files: list[str]) -> str:
    for name, lines in files.items():
        (directory / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return str(directory)


def test_a_clean_directory(tmp_path: Path) -> None:
    result = run(write(tmp_path, train=GOOD[:8], valid=GOOD[8:10], test=GOOD[10:]))
    assert result.exit_code == 0
    assert result.stderr == f"Reading {tmp_path} ...\nNo problems found.\n"
    assert "train, by length in tokens" in result.stdout
    assert "█" in result.stdout
    assert "\x1b" not in result.output


def test_problems_end_with_three(tmp_path: Path) -> None:
    result = run(write(tmp_path, train=[*GOOD, '{"text": "\x1b[2J'], valid=GOOD[:2]))
    assert isinstance(result.exception, ChecksFailed)
    assert result.exception.exit_code == 3
    assert "2 of 2 rows are in train too" in result.stdout
    assert "train.jsonl:13: not JSON" in result.stdout
    assert "\x1b" not in result.output


def test_an_empty_file_is_named_as_the_place_for_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    result = run(str(tmp_path / "rows.jsonl"))
    assert isinstance(result.exception, ChecksFailed)
    assert "Add rows to the file" in result.stdout and "train.jsonl" not in result.stdout


def test_where_all_rows_are_bad_the_cause_is_named(tmp_path: Path) -> None:
    rows = ['{"prompt": "a", "completion": "b"}', '{"prompt": "c", "completion": "d"}']
    source = write(tmp_path, train=rows)
    result = run(source, "--prompt-feature", "question")
    assert "so leave --prompt-feature question out" in result.stdout
    assert "there are no usable train rows: 2 rows can't be used" in result.stdout
    assert "--skip-bad-rows" not in result.stdout and "Add rows to train.jsonl" not in result.stdout
    assert "--skip-bad-rows" in run(write(tmp_path, train=[*rows, '{"text": "x'])).stdout


def test_json(tmp_path: Path) -> None:
    result = run(write(tmp_path, train=GOOD, valid=GOOD[:2]), "--json")
    report = json.loads(result.stdout)
    assert report["healthy"] is False
    assert report["splits"]["train"]["rows"] == 12
    assert {finding["code"] for finding in report["findings"]} == {"no_rows", "shared_rows"}
    assert set(report["findings"][0]) == {"code", "severity", "split", "message", "cure"}


def test_one_file_is_split_first(tmp_path: Path) -> None:
    write(tmp_path, rows=GOOD)
    report = json.loads(run(str(tmp_path / "rows.jsonl"), "--json").stdout)
    assert {split: r["rows"] for split, r in report["splits"].items()} == {"train": 10, "valid": 1, "test": 1}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(["./nowhere"], DataError), (["excel", "--model", "./nowhere"], ModelError)],
)
def test_mistakes_of_the_command_are_errors_of_the_user(arguments: list[str], error: type[Exception]) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert result.exception.exit_code == 2


def test_rows_longer_than_the_positions_of_the_model_are_an_error(tmp_path: Path) -> None:
    model = tmp_path / "gpt2"
    shutil.copytree(model_path("tiny"), model, ignore=shutil.ignore_patterns("*.safetensors"))
    (model / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_positions": 30}))
    long = json.dumps({"prompt": "row", "completion": "=SUM(A1:A2)" * 20})
    directory = write(tmp_path, train=[*GOOD, long], valid=[], test=[])
    report = json.loads(run(directory, "--model", str(model), "--json").stdout)
    assert report["splits"]["train"]["longest"] == 31
    (message,) = [found["message"] for found in report["findings"] if found["code"] == "truncated"]
    assert message == (
        "1 of 13 rows are longer than 31 tokens (the 30 positions of the model) and would be cut: "
        f"{directory}/train.jsonl:13"
    )


def test_duplicates_are_named_and_do_not_contradict_the_verdict(tmp_path: Path) -> None:
    directory = write(tmp_path, train=[*GOOD[:8], *GOOD[:2]], valid=GOOD[8:10], test=GOOD[10:])
    result = run(directory)
    assert result.exit_code == 0
    assert result.stderr == f"Reading {directory} ...\nNo errors; 1 note above.\n"
    shown = " ".join(result.stdout.split())
    assert "2 of 10 rows repeat an earlier row" in shown
    finding = json.loads(run(directory, "--json").stdout)["findings"][0]
    assert finding["message"].endswith(
        f"{directory}/train.jsonl:9 is {directory}/train.jsonl:1, {directory}/train.jsonl:10 is {directory}/train.jsonl:2"
    )
