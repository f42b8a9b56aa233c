"""Averages: the weights of a merge, what the averager keeps, and runs that are averaged, interrupted and resumed."""

from __future__ import annotations

import itertools
import json

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.cli.main import main
from mlxsched.config.average import SHAPES, parse_average
from mlxsched.errors import RunError, UsageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.schedules import wsd
from mlxsched.training.averaging import Averager, merge_weights
from mlxsched.training.progress import Progress
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("updates", [range(30, 81), [30, 40, 50, 60, 70, 80], [30, 33, 59, 80]])
def test_a_merge_applies_the_rates_of_its_decay_to_the_increments(shape, updates):
    """The identity of arXiv 2507.17634, in float64, on a random walk as a constant-rate run makes one."""
    random = np.random.default_rng(1)
    steps = random.standard_normal((81, 7))
    walk = np.vstack([np.zeros(7), np.cumsum(steps, axis=0)])  # walk[u]: after u updates
    weights = merge_weights(list(updates), shape)
    merged = sum(weight * walk[update] for weight, update in zip(weights, updates, strict=True))
    rates = wsd(1.0, steps=50, decay=50, shape=shape)(np.arange(50))
    decayed = walk[30].copy()
    for first, last in itertools.pairwise(updates):
        decayed += rates[first - 30 : last - 30].mean() * (walk[last] - walk[first])
    np.testing.assert_allclose(merged, decayed, atol=1e-12)
    assert sum(weights) == pytest.approx(1.0)


def test_with_a_point_at_every_update_a_merge_is_the_decayed_run_of_constant_gradients():
    random = np.random.default_rng(2)
    steps = random.standard_normal((50, 3))
    walk = np.vstack([np.zeros(3), np.cumsum(steps, axis=0)])
    weights = merge_weights(range(51), "1-sqrt")
    decayed = sum(wsd(1.0, 50, decay=50)(update) * steps[update] for update in range(50))
    np.testing.assert_allclose(weights @ walk, decayed, atol=1e-12)


def test_equal_weights_stand_for_a_linear_decay():
    factors = np.cumsum(([1 / 5] * 5)[::-1])[::-1][1:]
    np.testing.assert_allclose(factors, [1 - i / 5 for i in range(1, 5)])


def packed(value):
    return {"base": {"vector": mx.full((3,), float(value))}}


def averager(text, every=2, ends=()):
    return Averager(parse_average(text), every, lambda update: update in ends, lambda p: p["base"])


def mean_after(made, updates):
    for update in range(1, updates + 1):
        made.see(update, packed(update))
    found = made.mean(updates, packed(updates))
    return None if found is None else found["vector"].tolist()[0]


def test_last_waits_for_its_points_and_takes_the_present_as_the_last_one():
    assert mean_after(averager("last:3"), 3) is None
    assert mean_after(averager("last:3"), 6) == pytest.approx((2 + 4 + 6) / 3)
    assert mean_after(averager("last:3"), 9) == pytest.approx((6 + 8 + 9) / 3)
    made = averager("last:3")
    mean_after(made, 9)
    assert sorted(made.state) == [4, 6, 8]


def test_a_moving_average_is_corrected_for_its_short_memory():
    weights = [0.9 ** (7 - update) for update in range(1, 8)]
    expected = sum(w * u for w, u in zip(weights, range(1, 8), strict=True)) / sum(weights)
    assert mean_after(averager("ema:0.9"), 7) == pytest.approx(expected, rel=1e-6)
    assert mean_after(averager("ema:0.9"), 1) == pytest.approx(1.0)


def test_cycles_are_averaged_at_their_ends_only():
    assert mean_after(averager("cycles", ends=(4, 8)), 6) is None
    assert mean_after(averager("cycles", ends=(4, 8)), 10) == pytest.approx(6.0)


def test_an_average_that_is_the_best_counts_for_patience_and_is_named():
    progress = Progress(update=5, best_loss=1.0, best_update=0, evaluations_since_best=3)
    assert progress.see_average("last:2", 0.5) and progress.best == {
        "update": 5,
        "loss": 0.5,
        "average": "last:2",
    }
    assert not progress.see_evaluation(0.6) and progress.evaluations_since_best == 0
    progress.update = 9
    assert not progress.see_average("last:2", float("nan")) and not progress.see_average("last:2", None)
    assert progress.see_evaluation(0.4) and progress.best == {"update": 9, "loss": 0.4}
    assert Progress.from_dict(progress.to_dict()) == progress


FLAGS = {"schedule": "constant", "warmup": 1, "learning_rate": 3e-3, "average_every": 2}


@pytest.fixture(scope="module")
def small():
    """Make a session of 12 updates; keyword arguments are config values."""
    from mlxsched.config import load_config

    sizes = {
        "iters": 12,
        "batch_size": 4,
        "val_batches": 2,
        "steps_per_eval": 5,
        "save_every": 5,
        "test": False,
    }

    def make(**flags):
        loaded = load_config(flags={**sizes, **FLAGS, **flags})
        return prepare(loaded.config, loaded.origins)

    return make


@pytest.fixture(scope="module")
def averaged(small, tmp_path_factory):
    """A finished run with ``last:3``; gives the run and its progress."""
    run = create_run(small(average="last:3"), tmp_path_factory.mktemp("runs") / "whole")
    return run, execute(small(average="last:3"), run)


def tensors(path):
    return mx.load(str(path / "adapters.safetensors"))


def test_the_average_is_measured_with_the_evaluations_and_kept(averaged):
    run, progress = averaged
    found = progress.results["average"]
    assert found["name"] == "last:3" and found["update"] == 12
    notices = [r for r in run.read_metrics() if r.get("code") == "average"]
    assert [r["update"] for r in notices] == [5, 10, 12]
    evaluations = {r["update"]: r["loss"] for r in run.read_metrics() if r["kind"] == "eval"}
    best = min([*evaluations.values(), found["loss"]])
    assert progress.best_loss <= best and run.info.results["average"] == found
    assert run.info.best == progress.best


def test_the_average_is_that_of_its_points(averaged, interrupted):
    """Points after 8 and 10 updates, and the last adapter: the first two from runs that were left there."""
    run, _ = averaged
    points = []
    for updates in (8, 10):
        made, path = interrupted(f"to-{updates}", 0, **FLAGS)
        opened = RunDirectory.open(path)
        with opened.lock():
            loop, measurement = start(made, opened, sinks_of(opened))
            measurement.before()
            for _ in range(updates):
                loop.step()
            points.append(loop.engine.tensors())
    points.append(tensors(run.checkpoints.path(12)))
    kept = tensors(run.path / "adapters_average")
    for name in kept:
        expected = sum(np.array(point[name], np.float64) for point in points) / 3
        np.testing.assert_allclose(np.array(kept[name]), expected, atol=1e-7)


@pytest.mark.parametrize(
    ("average", "updates"), [("last:3", 7), ("ema:0.8", 11), ("merge:1-sqrt:3:products", 11)]
)
def test_a_resume_has_the_same_averages(small, resume, tmp_path, average, updates):
    whole = create_run(small(average=average), tmp_path / "whole")
    execute(small(average=average), whole)
    made = small(average=average)
    parts = create_run(made, tmp_path / "parts")
    with parts.lock():
        loop, measurement = start(made, parts, sinks_of(parts))
        measurement.before()
        for _ in range(updates):
            loop.step()
    resumed, _ = resume(made, parts.path)
    times = ("seconds", "tokens_per_second", "peak_memory_gb")
    records = [
        [{k: v for k, v in record.items() if k not in times} for record in run.read_metrics()]
        for run in (whole, resumed)
    ]
    assert records[0] == records[1]
    for name in ("adapters", "adapters_average", "checkpoints/000012"):
        files = sorted(path.name for path in (whole.path / name).glob("a*.safetensors"))
        assert files == sorted(path.name for path in (parts.path / name).glob("a*.safetensors"))
        for file in files:
            assert (parts.path / name / file).read_bytes() == (whole.path / name / file).read_bytes()
    assert resumed.info.results["average"] == whole.info.results["average"]


def test_the_better_one_is_used_and_the_last_one_kept(small, tmp_path):
    """At a high constant rate the last adapter jumps about, and the average is better."""
    flags = {"iters": 24, "warmup": 2, "steps_per_eval": 8, "val_batches": 4, "average_every": 5}
    run = create_run(small(average="last:3", **flags), tmp_path / "run")
    progress = execute(small(average="last:3", **flags), run)
    assert progress.best_average == "last:3" and progress.best_loss < progress.evaluated_loss
    assert run.info.best["average"] == "last:3"
    used, last = tensors(run.adapters), tensors(run.final_adapters)
    stored = tensors(run.checkpoints.path(24))
    assert all(mx.array_equal(last[name], stored[name]) for name in last)
    assert not all(mx.array_equal(used[name], last[name]) for name in last)
    assert progress.results["after"]["loss"] == progress.best_loss


def test_without_validation_rows_the_average_is_kept_and_not_chosen(small, tmp_path):
    run = create_run(small(average="ema:0.5", val_batches=0), tmp_path / "run")
    progress = execute(small(average="ema:0.5", val_batches=0), run)
    assert progress.results["average"]["loss"] is None and progress.best_average is None
    assert (run.path / "adapters_average" / "adapters.safetensors").is_file()


def test_the_average_in_a_checkpoint_must_be_one(small, tmp_path):
    made = small(average="last:3")
    run = create_run(made, tmp_path / "run")
    with run.lock():
        loop, _ = start(made, run, sinks_of(run))
        for _ in range(6):
            loop.step()
        path = loop.checkpointer.save(loop.engine, loop.progress)
        assert sorted(name.partition(".")[0] for name in mx.load(str(path / "average.safetensors"))) == [
            "000002",
            "000004",
            "000006",
        ]
        run.checkpoints.write(
            6,
            lambda folder: (
                [
                    (folder / file.name).write_bytes(file.read_bytes())
                    for file in path.iterdir()
                    if file.name != "manifest.json"
                ]
                and mx.save_safetensors(str(folder / "average.safetensors"), {"../x": mx.ones(2)})
            ),
        )
        with pytest.raises(RunError, match="not the average of a run"):
            loop.restore(lambda text: None)


def test_the_plan_says_what_an_average_costs(small):
    def notes(**flags):
        return " ".join(str(f) for f in small(**flags).plan.findings if f.code in ("average", "decays_twice"))

    assert "last:5: 5 points, 1 update apart" in notes(average="last:5", average_every=None)
    assert "MB more in memory" in notes(average="ema") and "lag behind" not in notes(average="ema")
    assert "--schedule constant" in notes(average="ema", schedule="linear")
    lora, full = (small(average="last:5", **flags).memory.peak for flags in ({}, {"fine_tune_type": "full"}))
    assert full - small(fine_tune_type="full").memory.peak > 5 * 3_000_000
    assert lora - small().memory.peak < 5 * 1_000_000
    with pytest.raises(UsageError, match="needs a schedule with cycles"):
        small(average="cycles")


def test_the_commands_know_of_the_average(averaged, capsys):
    run, progress = averaged
    path = run.path / "adapters_average"
    assert main(["eval", str(path), "--split", "valid", "--limit", "8", "--no-generate", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(
        progress.results["average"]["loss"], rel=1e-5
    )
