"""``train``, ``plan``, ``resume``, ``eval`` and ``generate`` as a user types them."""

from __future__ import annotations

import fcntl
import json
import os
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mlxsched.bundled import data_path
from mlxsched.cli.main import main

SHORT = ["--iters", "6", "--batch-size", "4", "--val-batches", "2", "--no-test"]
WIKISQL = Path(__file__).parents[3] / "shared" / "data" / "wikisql"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    """Make a data directory from lines."""

    def make(**splits: list[str]) -> str:
        target = tmp_path / "data"
        target.mkdir(exist_ok=True)
        for name, lines in splits.items():
            (target / f"{name}.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return str(target)

    return make


def completions(count: int, answer: str = "ok") -> list[str]:
    return [json.dumps({"prompt": f"say {i}", "completion": f"{answer} {i}"}) for i in range(count)]


def test_train_eval_generate_resume(capsys):
    assert main(["train", *SHORT, "--run-dir", "runs/a", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["status"] == "finished" and result["updates"] == 6
    assert result["after"]["loss"] < result["before"]["loss"]
    assert result["short_cuts"]["training"]["loss_at_targets"] and result["notes"] == []
    assert "update 6/6" in err and "Plan" in err

    assert main(["eval", "runs/a", "--json", "--limit", "8"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert {"loss", "perplexity", "exact_match", "rows"} <= measured.keys() and measured["rows"] == 8
    assert main(["eval", "runs/a", "--base", "--json", "--limit", "8", "--no-generate"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] > measured["loss"]

    assert main(["generate", "runs/a", "--prompt", "Sum of A1 to A3", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.strip()
    assert main(["resume", "runs/a"]) == 2
    assert "finished" in capsys.readouterr().err


def test_the_end_shows_before_and_after_and_what_to_do_next(capsys):
    assert main(["train", *SHORT, "--run-dir", "runs/a"]) == 0
    out, err = capsys.readouterr()
    assert "before" in out and "validation loss" in out
    assert "mlxsched generate runs/a" in out and "runs/a/adapters" in out
    assert "\x1b" not in out + err


def test_a_second_training_into_the_same_directory_is_refused(capsys):
    assert main(["train", *SHORT, "--run-dir", "runs/a"]) == 0
    assert main(["train", *SHORT, "--run-dir", "runs/a"]) == 2
    assert "mlxsched eval runs/a" in capsys.readouterr().err


def test_plan_counts_updates_as_mlx_lm_users_expect(capsys):
    arguments = ["--batch-size", "4", "--grad-accumulation-steps", "8", "--iters", "1000"]
    assert main(["plan", "--no-estimate", *arguments, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["updates"], plan["batch_size"]) == (125, 32)
    assert {"rows", "epochs", "schedule", "peak_memory_gb", "warnings"} <= plan.keys()


def test_plan_shows_micro_batches_and_what_a_length_window_saves(capsys):
    found = {}
    for window in ("1", "32"):
        assert main(["plan", "--no-estimate", "--batch-size", "4", "--length-window", window, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert plan["length_window"] == int(window)
        found[window] = plan["micro_batches"]
        assert found[window]["line_width"] is None
    assert found["32"]["padding"] < found["1"]["padding"]
    assert main(["plan", "--no-estimate", "--batch-size", "4", "--length-window", "32", "--packing"]) == 0
    out = capsys.readouterr().out
    assert "rows grouped by length within 32 updates" in out
    assert "% padding; rows of up to" in out
    assert main(["plan", "--length-window", "0"]) == 2
    assert "--length-window" in capsys.readouterr().err


def test_a_presets_warmup_is_shortened_and_ones_own_is_not(capsys):
    assert main(["plan", "--no-estimate", "--preset", "laptop", "--epochs", "1", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["warmup"] == plan["updates"] // 10
    assert any("shortened from 200" in note for note in plan["notes"])
    assert (
        main(["plan", "--no-estimate", "--preset", "laptop", "--epochs", "1", "--warmup", "90", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["warmup"] == 90


def test_a_copied_presets_warmup_is_ones_own_and_the_message_says_how_to_shorten_it(capsys):
    assert main(["presets", "copy", "laptop", "mine.yaml"]) == 0
    line = next(
        i for i, text in enumerate(Path("mine.yaml").read_text().splitlines(), 1) if text.startswith("warmup")
    )
    assert main(["plan", "-c", "mine.yaml", "--epochs", "0.1"]) == 2
    err = capsys.readouterr().err
    assert f"mine.yaml:{line}: `warmup` must be below `steps`; got 200 and 50" in err
    assert "`warmup: 0.1`" in err
    text = Path("mine.yaml").read_text().replace("warmup: 200", "warmup: 0.1")
    Path("mine.yaml").write_text(text)
    assert main(["plan", "-c", "mine.yaml", "--epochs", "0.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["warmup"] == 5
    assert main(["plan", "--warmup", "50", "--epochs", "0.1"]) == 2
    assert "0.1`" not in capsys.readouterr().err  # who writes --warmup knows it


def test_more_layers_than_there_are_means_all_and_is_told(capsys):
    assert main(["plan", "--iters", "9", "--num-layers", "16", "--json"]) == 0
    assert "the model has 4 layers: num_layers 16 means all" in json.loads(capsys.readouterr().out)["notes"]


@pytest.mark.parametrize(("columns", "drawn"), [(100, 60), (50, 50), (30, 0)])
def test_the_picture_in_a_plan_fits_the_terminal(columns, drawn):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "mlxsched", "plan", "--iters", "9"]
    environment = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = "".join(iter(lambda: _read(ours), ""))
    assert process.wait(timeout=30) == 0
    frame = [line.rstrip("\r") for line in shown.split("\n") if "┌" in line]
    assert [len(line) for line in frame] == ([drawn] if drawn else [])


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 1 << 16).decode("utf-8", "replace")
    except OSError:  # how Linux says that the other side is closed
        return ""


def test_the_plan_has_an_estimate_of_the_time(capsys):
    assert main(["plan", "--iters", "200", "--no-test", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["estimate"]
    assert expected["seconds"] > 200 * expected["update"] > 0 < expected["evaluation"]
    assert main(["plan", "--iters", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["estimate"] is None  # over before it is estimated


def test_dry_run_trains_nothing_and_shows_origins(capsys):
    assert main(["train", "--preset", "laptop", "--rank", "4", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "preset laptop" in out and "--rank" in out
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "./no-such-model"], "no-such-model"),
        (["--model", "nonsense"], "nonsense"),
        (["--preset", "latpop"], "laptop"),
        (["--data", "no/such/folder.jsonl"], "folder.jsonl"),
        (["--bath-size", "4"], "--batch-size"),
        (["--batch-size", "many"], "many"),
        (["--schedule", "cosin"], "cosine"),
        (["--schedule", "linear(peak=1)("], "linear(peak=1)("),
        (["--warmup", "600", "--iters", "600"], "600"),
        (["--epochs", "1", "--iters", "5"], "iters"),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--optimizer", "adamm"], "adam"),
        (["--num-layers", "x"], "x"),
        (["--resume-adapter-file", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--max-seq-length", "2"], "--max-seq-length"),
    ],
)
def test_a_users_mistake_gets_one_message_and_exit_code_2(arguments, said, capsys):
    assert main(["train", *arguments, "--dry-run"]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in out + err


def test_yaml_mistakes_are_told_with_their_place(capsys):
    Path("bad.yaml").write_text("learning_rate: 1e-4\nbatch_sise: 4\nepochs: many\n")
    assert main(["train", "-c", "bad.yaml", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "bad.yaml:2:1" in err and "batch_size" in err and "bad.yaml:3" in err


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ([], "no rows for train"),
        (['{"prompt": "a", "completion": "b"}', '{"prompt": "a", '], "train.jsonl:2"),
        (['{"other": 1}'], "train.jsonl:1"),
        (['{"messages": []}'], "train.jsonl:1"),
        (['{"messages": [{"role": "user", "content": "x"}]}'], "train.jsonl:1"),
    ],
)
def test_bad_data_is_told_with_its_line(train, said, folder, capsys):
    assert main(["train", "--data", folder(train=train, valid=completions(2)), "--dry-run"]) == 2
    assert said in capsys.readouterr().err


def test_rows_whose_targets_are_cut_off_are_dropped_with_a_count(folder, capsys):
    long = json.dumps({"prompt": "word " * 300, "completion": "x"})
    data = folder(train=[*completions(6), long, long], valid=completions(2))
    assert main(["train", "--data", data, "--max-seq-length", "64", "--iters", "2", "--batch-size", "2"]) == 0
    err = capsys.readouterr().err
    assert "2 rows" in err and "dropped" in err


def test_lora_preset_on_mlx_lms_own_example(capsys):
    if not WIKISQL.is_dir():
        pytest.skip("the WikiSQL rows lie in ../shared/data, beside the project")
    arguments = ["--data", str(WIKISQL), "--iters", "20", "--val-batches", "2", "--no-test"]
    assert main(["train", "--preset", "lora", *arguments, "--run-dir", "runs/sql", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["after"]["loss"] < result["before"]["loss"]


def test_an_mlx_lm_config_runs_unchanged(capsys):
    Path("lora_config.yaml").write_text(
        f"""
model: tiny
train: true
data: {data_path("excel")}
fine_tune_type: lora
optimizer: adamw
seed: 0
num_layers: 2
batch_size: 4
iters: 8
val_batches: 2
learning_rate: 1e-5
steps_per_report: 10
steps_per_eval: 200
grad_accumulation_steps: 4
resume_adapter_file: null
adapter_path: "adapters"
save_every: 100
test: false
test_batches: 100
max_seq_length: 2048
grad_checkpoint: false
lora_parameters:
  keys: ["self_attn.q_proj", "self_attn.v_proj"]
  rank: 8
  scale: 20.0
  dropout: 0.0
lr_schedule:
  name: cosine_decay
  warmup: 1
  warmup_init: 1e-7
  arguments: [1e-5, 1000, 1e-7]
"""
    )
    assert main(["train", "-c", "lora_config.yaml", "--run-dir", "runs/m", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["updates"] == 2
    # The decay ends at 1002 and the run has 2 updates: said, not silent.
    assert "1,002 updates and the run has 2" in err
    assert Path("adapters/adapters.safetensors").is_file()


def test_rows_may_have_keys_of_their_own(folder, capsys):
    rows = [json.dumps({"ask": f"say {i}", "reply": f"ok {i}"}) for i in range(6)]
    Path("keys.yaml").write_text("prompt_feature: ask\ncompletion_feature: reply\n")
    assert main(["plan", "-c", "keys.yaml", "--data", folder(train=rows), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 6
