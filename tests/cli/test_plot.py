"""``mlxsched plot``, run as its users run it: through the click command and through a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mlxsched.cli.main import cli, main
from mlxsched.runs.metrics import MetricsWriter
from mlxsched.schedules import warmup_cosine, warmup_linear

COSINE = "warmup_cosine(peak=2e-4, steps=1000, warmup=100)"


def plot(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["plot", *arguments])


def record_run(directory: Path) -> Path:
    directory.mkdir(parents=True)
    with MetricsWriter(directory / "metrics.jsonl") as writer:
        for update in range(1, 21):
            writer.write({"kind": "train", "update": update, "loss": 3.0 - update / 10, "lr": 1e-5 * update})
        writer.write({"kind": "eval", "update": 20, "loss": 1.5})
    return directory


def test_json_holds_every_update_and_the_schedules_own_float64_values() -> None:
    told = json.loads(plot(COSINE, "--json").stdout)
    schedule = warmup_cosine(2e-4, 1000, 100)
    assert told["name"] == "warmup_cosine"
    assert told["schedule"] == schedule.to_dict()
    assert told["steps"] == list(range(1001))
    assert told["values"] == [schedule(step) for step in range(1001)]


def test_json_of_several_is_a_list_in_their_order() -> None:
    told = json.loads(plot("linear", COSINE, "--json", "--steps", "50").stdout)
    assert [one["name"] for one in told] == ["linear", "warmup_cosine"]
    assert told[0]["values"] == [warmup_linear(2e-4, 50, 0.1)(step) for step in range(51)]
    assert told[1]["steps"][-1] == 50


def test_a_warmup_is_updates_or_a_ratio() -> None:
    for written in ("50", "50.0", "5e1", "0.5"):
        told = json.loads(plot("linear", "--steps", "100", "--warmup", written, "--json").stdout)
        assert told["values"].index(2e-4) == 50


def test_points_thin_the_numbers_out_but_keep_the_boundaries() -> None:
    told = json.loads(
        plot("warmup_cosine(peak=2e-4, steps=1000, warmup=30)", "--json", "--points", "9").stdout
    )
    assert {0, 30, 125, 250, 375, 500, 625, 750, 875, 1000} <= set(told["steps"])
    assert len(told["steps"]) < 15
    assert max(told["values"]) == 2e-4


def test_long_schedules_are_thinned_out_by_themselves() -> None:
    told = json.loads(plot("cosine", "--steps", "1_000_000", "--json").stdout)
    assert 1000 < len(told["steps"]) < 1100
    assert told["steps"][-1] == 1_000_000


def test_the_picture_goes_to_stdout_and_assumptions_to_stderr() -> None:
    result = plot("cosine")
    assert result.exit_code == 0
    assert "learning rate" in result.stdout and "warmup" in result.stdout and "2e-4" in result.stdout
    assert "assumed" not in result.stdout and "--steps 1000" in result.stderr


def test_several_schedules_share_one_picture_with_a_legend() -> None:
    text = plot("linear", "wsd", "--steps", "500", "--width", "70", "--height", "16").stdout
    assert "⠒⠒ linear" in text and "•• wsd" in text
    assert max(map(len, text.splitlines())) <= 70


def test_a_logarithmic_axis() -> None:
    assert "1e-5┤" in plot(COSINE, "--log").stdout


def test_a_run_shows_the_recorded_rate_with_the_loss_beside_it(tmp_path: Path) -> None:
    run = record_run(tmp_path / "first")
    text = plot(str(run)).stdout
    assert "learning rate" in text and "training loss (right)" in text and "validation loss (right)" in text
    told = json.loads(plot(str(run), "--json").stdout)
    assert told["steps"] == list(range(1, 21))
    assert told["values"] == [1e-5 * update for update in range(1, 21)]
    assert told["loss"]["values"][0] == 2.9 and told["eval_loss"] == {"updates": [20], "values": [1.5]}


def test_a_run_and_a_plan_over_each_other(tmp_path: Path) -> None:
    text = plot("linear", str(record_run(tmp_path / "first")), "--steps", "20").stdout
    assert "linear" in text and "first: learning rate" in text and "first: training loss (right)" in text


@pytest.mark.parametrize(("suffix", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_a_picture_file(tmp_path: Path, suffix: str, start: bytes) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"lr.{suffix}"
    result = plot("linear", "wsd", "-o", str(path))
    assert result.exit_code == 0 and result.stdout == ""
    assert str(path) in result.stderr
    assert path.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cosin"], "Did you mean 'cosine'?"),
        (["warmup_cosine(peak=2e-4, steps=10, warmup=10)"], "`warmup` must be below `steps`; got 10 and 10"),
        (["warmup_cosine(peak=2e-4"], "cannot read the schedule"),
        (["linear", "--warmup", "soon"], "'soon' is neither a number of updates nor a ratio"),
        (["linear", "-o", "lr.bmp"], ".png, .svg or .pdf"),
        (["linear", "--peak", "0", "--log"], "Leave out --log"),
        (["linear", "--steps", "0"], "--steps"),
        (["linear", "--width", "100000000"], "--width"),
        (["linear", "--height", "100000000"], "--height"),
        (["linear", "--warmup", "1.5"], "`warmup`"),
        (["linear", "--warmup", "nan"], "`warmup`"),
        (["linear", "--peak", "-1"], "`peak`"),
        (["linear", "--peak", "inf"], "`peak`"),
        ([], "SCHEDULE"),
    ],
)
def test_a_mistake_gets_one_message_and_exit_code_2(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plot", *arguments]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert expected in told.err and "Traceback" not in told.err


def test_an_empty_directory_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(tmp_path)]) == 2
    assert "no recorded learning rate" in capsys.readouterr().err


def test_help_says_how_the_kinds_are_told_apart_and_gives_examples() -> None:
    text = plot("--help").stdout
    for word in (
        "looked up in this order",
        "a spec",
        "a preset",
        "a directory",
        "a YAML file",
        "--json",
        "Examples:",
    ):
        assert word in text


def test_a_process_of_its_own_writes_no_colour_into_a_pipe() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlxsched.cli.main", "plot", "linear", "cosine"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"\x1b" not in done.stdout
    assert "⠒⠒ linear" in done.stdout.decode()


def test_a_pipe_without_unicode_gets_plain_characters() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlxsched.cli.main", "plot", "linear"],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.isascii() and b"*" in done.stdout
