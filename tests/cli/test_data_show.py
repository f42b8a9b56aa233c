"""``mlxsched data show``: what it prints, and that it sees what a training sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlxsched.cli.data import command
from mlxsched.errors import ConfigError, DataError, UsageError

ROWS = [{"prompt": f"row {i}", "completion": f"={i}"} for i in range(12)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["show", *arguments])


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return str(tmp_path)


def test_targets_are_marked_and_places_named(path: str) -> None:
    result = run(path, "--rows", "2,12")
    assert result.exit_code == 0
    assert f"row 2  {path}/train.jsonl:2  " in result.stdout
    assert "<|user|>row 1<|end|><|assistant|>⟦=1<|end|>⟧" in result.stdout
    assert "⟦=11<|end|>⟧" in result.stdout
    assert result.stdout.count("⟦") == 2
    assert result.stderr == ""


def test_the_first_ten_by_default_and_all_as_json(path: str) -> None:
    result = run(path)
    assert result.stdout.count("⟦") == 10
    assert "10 of 12 rows of train" in result.stderr
    rows = json.loads(run(path, "--json").stdout)
    assert [row["row"] for row in rows] == list(range(1, 13))
    assert set(rows[0]) == {"row", "file", "line", "segments", "tokens", "targets"}
    assert [s["text"] for s in rows[3]["segments"] if s["target"]] == ["=3<|end|>"]


def test_without_a_mask_all_but_the_first_token_is_a_target(path: str) -> None:
    (row,) = json.loads(run(path, "--json", "--rows", "1", "--no-mask-prompt").stdout)
    assert row["targets"] == row["tokens"] - 1
    assert [segment["target"] for segment in row["segments"]] == [False, True]


def test_control_codes_of_the_data_do_not_reach_the_terminal(tmp_path: Path) -> None:
    codes = "\x1b[2J\x1b]0;title\x07\x9b31mred\rback"
    file = tmp_path / "train.jsonl"
    file.write_text(json.dumps({"text": f"hello {codes}"}) + "\n")
    result = run(str(tmp_path))
    assert "llo " in result.stdout
    assert not set("\x1b\x07\x9b\r") & set(result.output)


def test_colours_on_a_terminal(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = run(path, "--rows", "1").stdout
    assert "\x1b[32m=0<|end|>\x1b[0m" in coloured
    assert "⟦" not in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert "⟦=0<|end|>⟧" in run(path, "--rows", "1").stdout


def test_rows_that_cannot_be_used_are_left_out_and_noted(path: str) -> None:
    with (Path(path) / "train.jsonl").open("a") as file:
        file.write("{\n" + json.dumps({"prompt": "last", "completion": "=LAST"}) + "\n")
    result = run(path, "--rows", "13", "--json")
    assert json.loads(result.stdout)[0]["line"] == 14
    assert "1 row can't be used; the first: " in result.stderr
    assert "train.jsonl:13: not JSON" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--rows", "13"], UsageError),
        (["--rows", "x"], UsageError),
        (["--split", "valid"], DataError),
        (["--max-seq-length", "x"], ConfigError),
        (["--preset", "nothing"], UsageError),
    ],
)
def test_mistakes_of_the_command(arguments: list[str], error: type[Exception], path: str) -> None:
    result = run(path, *arguments)
    assert isinstance(result.exception, error)
    assert result.exception.exit_code == 2


def test_a_config_decides_what_is_read(path: str, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("mask_prompt: false\nmax_seq_length: 6\n")
    (row,) = json.loads(run(path, "--json", "--rows", "1", "-c", str(config)).stdout)
    assert (row["tokens"], row["targets"]) == (6, 5)


def test_the_same_rows_as_in_a_training(path: str, tmp_path: Path, architecture: Any) -> None:
    """The end tokens of generation_config.json count, as they do for a model that is loaded whole."""
    from mlxsched.cli.data import _open
    from mlxsched.config.load import load_config
    from mlxsched.data import load_dataset
    from mlxsched.training.session import prepare

    model = architecture("llama")
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    flags = {"data": path, "model": str(model), "max_seq_length": 14, "iters": 1, "num_layers": 1}
    session = prepare(load_config(flags=flags).config)
    arguments = {"model": str(model), "max_seq_length": "14", "trust_remote_code": False}
    tokenizer, options = _open(path, (), preset=None, config=None, **arguments)
    found = load_dataset(path, tokenizer, options)
    assert {3, 4} <= tokenizer.eos_token_ids
    assert tokenizer.eos_token_ids == session.loaded.tokenizer.eos_token_ids
    assert found.fingerprint == session.dataset.fingerprint
    assert found.counts == session.dataset.counts
