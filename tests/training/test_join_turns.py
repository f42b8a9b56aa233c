"""Conversations that were cut into rows, joined: the losses and gradients of the data set stay, in fewer tokens."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.cli.plan_view import plan_lines
from mlxsched.data.batching.batches import collate
from mlxsched.data.batching.grid import length_grid
from mlxsched.model.fast.forward_path import PLAIN
from mlxsched.model.trees import flatten
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.recorded import changes_since
from mlxsched.training.run import create_run
from mlxsched.training.session import prepare

TURNS = [
    "the sum of A1 and A2",
    "=SUM(A1,A2)",
    "and of B1 to B3",
    "=SUM(A1,A2,B1:B3)",
    "the mean",
    "=AVERAGE(A1,A2)",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two conversations, each cut into a row for each of its three answers; one row of their own."""
    folder = tmp_path_factory.mktemp("data")
    rows = []
    for cell in "CD":
        turns = [
            {"role": ("user", "assistant")[n % 2], "content": t.replace("A1", f"{cell}1")}
            for n, t in enumerate(TURNS)
        ]
        rows += [{"messages": turns[:stop]} for stop in (2, 4, 6)]
    rows.append({"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "=1"}]})
    order = np.random.default_rng(0).permutation(len(rows))
    for split in ("train", "valid"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(rows[n]) + "\n" for n in order))
    return str(folder)


def sums(made):
    """The sum of all losses and its gradients on the plain path, one row at a time, and the targets."""
    model, rows = made.loaded.model, made.train_rows
    total, gradients, targets = 0.0, {}, 0
    stirred = {name: value + 0.01 for name, value in flatten(model.trainable_parameters()).items()}
    model.load_weights(
        list(stirred.items()), strict=False
    )  # LoRA's B starts at 0, and A would have no gradient

    def loss_of(tree, arrays):
        model.update(tree)
        return PLAIN.loss(model, *arrays)

    for index in range(len(rows)):
        batch = collate(rows, np.array([index]), length_grid(rows.lengths[[index]]))
        loss, found = mx.value_and_grad(loss_of)(model.trainable_parameters(), PLAIN.arrays(batch, 1))
        for name, value in flatten(found).items():
            gradients[name] = gradients.get(name, 0) + value
        total, targets = total + float(loss), targets + batch.n_targets
        mx.eval(gradients)
    return total, gradients, targets


def test_the_sums_of_losses_and_gradients_are_those_of_the_rows_before(session, data):
    whole, one = (session(data=data, join_turns=join, num_layers=2) for join in (False, True))
    assert (len(whole.train_rows), len(one.train_rows)) == (7, 3)
    assert one.plan.rows == 3 and one.plan.tokens < 0.6 * whole.plan.tokens
    (expected, expected_gradients, targets), (loss, gradients, same_targets) = sums(whole), sums(one)
    assert same_targets == targets == whole.plan.targets == one.plan.targets
    assert dict(plan_lines(one))["tokens"].endswith(f", which count as {targets}")
    assert loss == pytest.approx(expected, rel=1e-6)
    for name, value in expected_gradients.items():
        assert float(((gradients[name] - value) ** 2).sum()) <= 1e-10 * float((value**2).sum()) + 1e-12, name


def test_a_run_records_it_and_resumes_with_it_only(interrupted, data):
    settings = {
        "data": data,
        "join_turns": True,
        "batch_size": 2,
        "iters": 4,
        "save_every": 2,
        "num_layers": 1,
    }
    made, path = interrupted("joined", 0, **settings)
    run = RunDirectory.open(path)
    assert run.info.config["join_turns"] is True
    undone = prepare(made.config.model_copy(update={"join_turns": False}), made.origins)
    (change,) = changes_since(run, undone)
    assert "content of the data" in change
    assert not changes_since(run, prepare(made.config, made.origins))


def test_a_run_records_which_rows_it_is_evaluated_on(session, data, tmp_path):
    """The validation rows are the same whatever becomes of the training rows; the seed chooses them in one file."""
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n} + {n}", "completion": str(2 * n)}) + "\n" for n in range(40))
    )
    variants = {
        "whole": {"data": data},
        "joined": {"data": data, "join_turns": True},
        "one": {"data": str(tmp_path / "rows.jsonl")},
        "other": {"data": str(tmp_path / "rows.jsonl"), "seed": 1},
    }
    whole, joined, one, other = (
        create_run(session(num_layers=1, **given), tmp_path / name).info.data
        for name, given in variants.items()
    )
    assert whole["valid"] == joined["valid"] and whole["fingerprint"] != joined["fingerprint"]
    assert one["valid"] != other["valid"]
    assert [known["split_by_seed"] for known in (whole, joined, one, other)] == [False, False, True, True]
