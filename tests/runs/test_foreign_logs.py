"""Logs of other trainers, as they write them."""

from __future__ import annotations

import contextlib
import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.errors import DataError, UserError
from mlxsched.runs.events import Evaluated, UpdateMade
from mlxsched.runs.foreign_logs import read_log

MLX_LM = """Loading pretrained model
Trainable parameters: 0.122% (1.802M/1476.395M)
Starting training..., iters: 20
Calculating loss...: 100%|##########| 25/25 [00:01<00:00, 14.11it/s]
Iter 1: Val loss 2.831, Val took 1.202s
Iter 10: Train loss 2.701, Learning Rate 1.000e-05, It/sec 3.112, Tokens/sec 500.134, Trained Tokens 1607, Peak mem 2.101 GB
Iter 20: Val loss 2.511, Val took 1.2s
Iter 20: Train loss nan, Learning Rate 9.000e-06, It/sec 3.1, Tokens/sec 510.1, Trained Tokens 3200, Peak mem 2.2 GB
"""
DICTS = """{'loss': 2.31, 'grad_norm': 1.25, 'learning_rate': 0.0002, 'epoch': 0.1}
  1%|          | 10/900 [00:10<10:00]
{'loss': 1.9, 'grad_norm': nan, 'learning_rate': 0.0001, 'epoch': 0.2}
{'eval_loss': 2.0, 'eval_runtime': 1.0, 'epoch': 0.2}
{'train_runtime': 12.0, 'epoch': 0.2}
"""
TRAINER = {
    "max_steps": 40,
    "log_history": [
        {"epoch": 0.1, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 2.5, "step": 10},
        {"epoch": 0.2, "eval_loss": 2.2, "eval_runtime": 1.0, "step": 20},
        {"epoch": 0.2, "learning_rate": 5e-5, "loss": 2.1, "step": 20},
        {"epoch": 1.0, "step": 40, "train_loss": 2.0, "train_runtime": 60.0},
        "damaged",
    ],
}


@pytest.fixture
def log(tmp_path):
    def read(text, name="train.log"):
        path = tmp_path / name
        path.write_text(text)
        return read_log(path)

    return read


def same(found, *expected):
    """Whether events are equal, where NaN equals NaN."""
    return [repr(event) for event in found] == [repr(event) for event in expected]


def test_mlx_lm(log):
    found = log(MLX_LM)
    assert found.format == "mlx-lm"
    first, update, second, last = found.events
    made = UpdateMade(9, 2.701, 1e-5, tokens_per_second=500.134, peak_memory_gb=2.101)
    # The second evaluation was measured before the update of iteration 20.
    assert same([first, update, second], Evaluated(0, 2.831), made, Evaluated(19, 2.511))
    assert math.isnan(last.loss)


def test_printed_dicts_count_on(log):
    found = log(DICTS)
    assert [type(event) for event in found.events] == [UpdateMade, UpdateMade, Evaluated]
    first, second, valid = found.events
    assert (first.update, first.loss, first.lr, first.grad_norm) == (0, 2.31, 2e-4, 1.25)
    assert (second.update, valid.update, valid.loss) == (1, 2, 2.0)
    assert math.isnan(second.grad_norm)


def test_the_state_of_transformers(log):
    found = log(json.dumps(TRAINER), "trainer_state.json")
    assert (found.format, found.planned) == ("transformers", 40)
    updates = [event for event in found.events if isinstance(event, UpdateMade)]
    assert [(event.update, event.loss) for event in updates] == [(9, 2.5), (19, 2.1)]
    assert repr(Evaluated(20, 2.2)) in map(repr, found.events)


def test_a_complete_run_of_transformers_has_no_plan_that_it_missed(log):
    """Its last update is logged only if it is a multiple of logging_steps."""
    found = log(json.dumps({**TRAINER, "max_steps": 25, "global_step": 25}), "trainer_state.json")
    assert found.planned is None
    stopped = log(json.dumps({**TRAINER, "global_step": 25}), "trainer_state.json")
    assert stopped.planned == 40


def test_the_mean_loss_of_a_whole_run_is_no_update(log):
    summary = "{'train_runtime': 12.0, 'train_loss': 2.1, 'epoch': 0.2}\n"
    assert same(log(DICTS + summary).events[:2], *log(DICTS).events[:2])
    assert len(log(DICTS + summary).events) == len(log(DICTS).events)


@pytest.mark.parametrize("line", ["{1: 2}", "{[1]: 2}", "Iter " + "9" * 5000 + ": Val loss 1.0"])
def test_lines_that_are_no_records_are_skipped(log, line):
    assert len(log(DICTS + line + "\n").events) == 3


@pytest.mark.parametrize("comma", [",", ";", "\t"])
def test_csv(log, comma):
    text = "step,Training Loss,Validation Loss,learning_rate\n10,2.5,2.6,1e-4\n20,2.1,,5e-5\n"
    found = log(text.replace(",", comma), "log.csv")
    assert same(found.events, UpdateMade(9, 2.5, 1e-4), Evaluated(10, 2.6), UpdateMade(19, 2.1, 5e-5))


def test_json_lines_of_wandb(log):
    line = json.dumps(
        {"train/loss": 2.5, "train/learning_rate": 1e-4, "train/global_step": 10, "global_step": 10}
    )
    assert same(log(line + "\n", "x.jsonl").events, UpdateMade(9, 2.5, 1e-4))


@pytest.mark.parametrize(
    "text", ["", "nothing here\n", "{'os': 1}\n", "a,b\n1,2\n", "{'loss': __import__('os')}"]
)
def test_a_file_without_losses_is_refused_with_what_is_read(log, text):
    with pytest.raises(DataError, match="no losses were found"):
        log(text)


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.log")
    with pytest.raises(UserError, match="not a regular file"):
        read_log(tmp_path / "pipe.log")


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=200)
    | st.sampled_from([MLX_LM, DICTS]).flatmap(lambda text: st.permutations(text).map("".join))
)
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("logs") / "a.log"
    path.write_text(text, encoding="utf-8", errors="replace")
    with contextlib.suppress(DataError):
        assert read_log(path).events


@pytest.mark.parametrize("step", [10**400, -5, "many", True, math.nan])
def test_a_wild_step_is_counted_on(log, step):
    found = log(json.dumps({"log_history": [{"loss": 1.0, "step": step}]}), "trainer_state.json")
    assert found.events[0].update == 0
