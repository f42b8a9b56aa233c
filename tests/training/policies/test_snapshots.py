"""Snapshots at the ends of cycles: what is asked, what is kept, and that mlx-lm's files can be used."""

from __future__ import annotations

import json

import mlx.core as mx
import pytest

from mlxsched.cli.main import main
from mlxsched.errors import UserError
from mlxsched.runs.directory import RunDirectory, split_adapter
from mlxsched.schedules import parse
from mlxsched.training.policies.base import Evaluate
from mlxsched.training.policies.snapshots import (
    Snapshots,
    kept_ends,
    snapshot_findings,
    snapshots_in,
    with_snapshot,
)
from mlxsched.training.progress import Progress
from mlxsched.training.run import create_run, execute

SPEC = "cosine_restarts(cycles=3)"


@pytest.fixture(scope="module")
def cycles(tmp_path_factory):
    """A finished run of three cycles of 4 updates, whose evaluations come at other updates."""
    from mlxsched.config import load_config
    from mlxsched.training.session import prepare

    flags = {"iters": 12, "batch_size": 4, "val_batches": 2, "steps_per_eval": 5, "save_every": 5}
    loaded = load_config(flags={**flags, "schedule": SPEC, "warmup": 0, "learning_rate": 1e-3})
    run = create_run(prepare(loaded.config, loaded.origins), tmp_path_factory.mktemp("runs") / "cycles")
    execute(prepare(loaded.config, loaded.origins), run)
    return run


def test_an_end_is_evaluated_once_and_kept_once():
    kept = []
    policy = Snapshots(lambda: (4, 8), kept.append)

    def asked(**state):
        return list(policy.between_updates(Progress(**state), done=False))

    assert asked(update=3) == [] and kept == []
    assert isinstance(asked(update=4)[0], Evaluate) and kept == [4]
    (report,) = asked(update=4, evaluated_update=4, evaluated_loss=0.5)
    assert "snapshots/000004, validation loss 0.5000, the best" in report.notice.message
    results = {"snapshots": with_snapshot({}, 4, 0.5)}
    assert asked(update=4, evaluated_update=4, results=results) == [] and kept == [4, 4]


def test_of_many_cycles_some_ends_are_kept_and_the_plan_says_so():
    many = parse("cosine_restarts(peak=1e-3, steps=1000, cycles=50)")
    ends = kept_ends(many, 1000)
    assert len(ends) == 17 and ends[-1] == 1000
    (finding,) = snapshot_findings(many, 1000)
    assert "50 cycles" in finding.evidence and "17 of 50" in finding.evidence
    assert snapshot_findings(parse("warmup_linear(peak=1e-3, steps=100)"), 100) == []


def test_the_best_is_marked_and_damage_is_no_list():
    found = with_snapshot({"snapshots": with_snapshot({}, 4, 0.5)}, 8, 0.6)
    assert [one["best"] for one in found] == [True, False]
    assert with_snapshot({}, 4, None) == [{"update": 4, "loss": None, "best": False}]
    assert snapshots_in({"snapshots": "many"}) == snapshots_in({"snapshots": [3]}) == []


def test_every_end_of_a_cycle_is_evaluated_kept_and_listed(cycles):
    listed = cycles.info.results["snapshots"]
    assert [one["update"] for one in listed] == [4, 8, 12]
    losses = {r["update"]: r["loss"] for r in cycles.read_metrics() if r["kind"] == "eval"}
    assert [one["loss"] for one in listed] == [losses[4], losses[8], losses[12]]
    assert [one["best"] for one in listed].count(True) == 1
    assert min(listed, key=lambda one: one["loss"])["best"]
    messages = [r["message"] for r in cycles.read_metrics() if r.get("code") == "snapshot"]
    assert len(messages) == 3 and messages[0].startswith("kept in snapshots/000004, validation loss")


def test_a_snapshot_holds_the_parameters_after_its_update(cycles):
    kept = mx.load(str(cycles.path / "snapshots/000012/adapters.safetensors"))
    last = mx.load(str(cycles.checkpoints.path(12) / "adapters.safetensors"))
    earlier = mx.load(str(cycles.path / "snapshots/000004/adapters.safetensors"))
    assert all(mx.array_equal(kept[name], last[name]) for name in last)
    assert not all(mx.array_equal(kept[name], earlier[name]) for name in last)


def test_commands_take_the_path_of_a_snapshot(cycles, capsys):
    def loss(path):
        assert main(["eval", str(path), "--split", "valid", "--limit", "8", "--no-generate", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["loss"]

    path = cycles.path / "snapshots" / "000004"
    listed = cycles.info.results["snapshots"][0]["loss"]
    assert loss(path) == pytest.approx(listed, rel=1e-5)
    assert loss(cycles.path) != pytest.approx(listed, rel=1e-5)
    assert main(["generate", str(path), "--prompt", "Add up column B", "--max-tokens", "3"]) == 0


def test_a_path_is_that_of_an_adapter_only_inside_a_run(cycles, tmp_path):
    inside = cycles.path / "adapters"
    assert split_adapter(inside) == (cycles.path, inside)
    assert split_adapter(cycles.path) == (cycles.path, None)
    (tmp_path / "adapters.safetensors").write_text("")
    assert split_adapter(tmp_path) == (tmp_path, None)
    link = cycles.path / "snapshots" / "link"
    link.symlink_to(inside)
    with pytest.raises(UserError, match="symbolic link"):
        split_adapter(link)
    link.unlink()


def test_a_resumed_run_has_the_snapshots_of_an_uninterrupted_one(cycles, interrupted, resume):
    made, path = interrupted("parts", 9, schedule=SPEC, warmup=0, learning_rate=1e-3)
    resumed, _ = resume(made, path)
    assert resumed.info.results["snapshots"] == cycles.info.results["snapshots"]
    for update in (4, 8, 12):
        name = f"snapshots/{update:06d}/adapters.safetensors"
        assert (path / name).read_bytes() == (cycles.path / name).read_bytes()


def test_the_directory_of_snapshots_may_not_be_a_link(cycles, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_bytes((cycles.path / "run.json").read_bytes())
    (copy / "snapshots").symlink_to(cycles.path / "snapshots")
    with pytest.raises(UserError, match="symbolic link"):
        RunDirectory.open(copy)
