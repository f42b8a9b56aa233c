"""``mlx_lm.lora`` with our schedules: the real command on the bundled model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlx_lm import lora

from mlxsched.bundled import data_path, model_path
from mlxsched.errors import ScheduleError
from mlxsched.integrations.mlx_lm_lora import our_schedule, run

SHORT = "iters: 4\nbatch_size: 2\nnum_layers: 1\nsteps_per_report: 1\nval_batches: 1\nmax_seq_length: 64\ntrain: true\n"


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    for split in ("train", "valid"):
        lines = (data_path("excel") / f"{split}.jsonl").read_text().splitlines(keepends=True)
        (data / f"{split}.jsonl").write_text("".join(lines[:8]))

    def make(schedule: str) -> str:
        text = f"{SHORT}model: {model_path('tiny')}\ndata: {data}\nlr_schedule: {schedule}\n"
        Path("c.yaml").write_text(text)
        return "c.yaml"

    return make


@pytest.fixture
def rates(monkeypatch):
    """The learning rates that mlx-lm's own trainer reports."""
    seen: list[float] = []
    theirs = lora.train

    class Callback(lora.TrainingCallback):
        def on_train_loss_report(self, info):
            seen.append(info["learning_rate"])

    monkeypatch.setattr(lora, "train", lambda **more: theirs(**{**more, "training_callback": Callback()}))
    return seen


def test_a_schedule_of_ours_in_the_yaml(config, rates):
    assert run(["--config", config("{name: warmup_linear, peak: 1e-3, warmup: 2, end: 1e-4}")]) == 0
    assert rates == pytest.approx([0.0, 5e-4, 1e-3, 5.5e-4], rel=1e-6)
    assert Path("adapters/adapters.safetensors").is_file()


def test_the_text_form_and_a_block_of_mlx_lm(config, rates):
    assert run(["--config", config('"linear"'), "--learning-rate", "1e-3"]) == 0
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4], rel=1e-6)
    rates.clear()
    assert run(["--config", config("{name: linear_schedule, arguments: [1e-3, 0, 4]}")]) == 0
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4], rel=1e-6)


def test_mlx_lm_is_left_as_it_was(config):
    before = (lora.build_schedule, lora.run, list(sys.argv))
    with pytest.raises(ScheduleError, match="warmup_linear"):
        run(["--config", config("{name: warmup_liner}")])
    assert (lora.build_schedule, lora.run, sys.argv) == before


def test_no_update_is_refused():
    with pytest.raises(ScheduleError, match="no update"):
        our_schedule("linear", {"iters": 3, "grad_accumulation_steps": 4, "learning_rate": 1e-4})


@pytest.mark.parametrize("arguments", [["--no-such-flag"], ["--iters", "x"], ["--optimizer", "nope"]])
def test_exit_codes_and_messages_are_mlx_lms(arguments, capsys):
    from mlxsched.cli.main import main

    with pytest.raises(SystemExit) as end:
        lora.build_parser().parse_args(arguments)
    theirs = capsys.readouterr().err.splitlines()[-1].partition("error: ")[2]
    assert main(["lora", *arguments]) == end.value.code == 2
    assert theirs in capsys.readouterr().err


def test_help_and_errors_of_mlx_lm(capsys):
    from mlxsched.cli.main import main

    assert main(["lora", "--help"]) == 0
    out = capsys.readouterr().out
    assert "mlxsched lora --config" in out and "--grad-accumulation-steps" in out
    assert main(["lora", "--model", str(model_path("tiny")), "--data", str(data_path("excel"))]) == 1
    assert "Must provide at least one of --train or --test" in capsys.readouterr().err
    found = subprocess.run(
        [sys.executable, "-m", "mlxsched", "lora", "--nope"], capture_output=True, text=True
    )
    assert found.returncode == 2 and "unrecognized arguments: --nope" in found.stderr
