"""One trunk and its branches: each branch is the run that would have been trained separately."""

from __future__ import annotations

import json
import shutil

import pytest

from mlxsched.cli.main import main
from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.experiments.trunk import (
    Branch,
    parse_budgets,
    plan_comparison,
    run_comparison,
    save_settings,
    saved_settings,
)
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import prepare

FLAGS = {"iters": 12, "batch_size": 4, "val_batches": 2, "steps_per_eval": 4, "save_every": 4, "warmup": 2}
TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")
QUIET = lambda text: None  # noqa: E731


def settings(**flags):
    return load_config(flags={**FLAGS, "learning_rate": 2e-3, **flags})


def train(session, run, resume, policies):
    return execute(session, run, resume=resume, policies=policies)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A finished comparison of 6 and 12 updates; gives it and its results."""
    loaded = settings(schedule="wsd(decay=0.25)")
    path = tmp_path_factory.mktemp("compare") / "lengths"
    comparison = plan_comparison(path, loaded.config, loaded.origins, "0.5,1.0")
    save_settings(comparison)
    return comparison, run_comparison(comparison, train, QUIET)


def records(run):
    return [{k: v for k, v in record.items() if k not in TIMES} for record in run.read_metrics()]


def test_the_branches_leave_the_trunk_before_their_cooldown(compared):
    comparison, results = compared
    assert comparison.branches == (Branch(6, 4), Branch(12, 9))
    assert comparison.trunk_updates == 9
    assert [one.updates_spent for one in results] == [4 + 2, 9 + 2 + 3]
    assert [one.budget for one in results] == [6, 12]


def test_a_branch_is_bit_for_bit_a_separate_run(compared, tmp_path):
    _, results = compared
    for result in results:
        loaded = settings(schedule=f"wsd(decay={result.cooldown})", iters=result.budget)
        separate = create_run(prepare(loaded.config, loaded.origins), tmp_path / str(result.budget))
        execute(prepare(loaded.config, loaded.origins), separate)
        branch = RunDirectory.open(result.run)
        assert records(branch) == records(separate)
        assert branch.info.best == separate.info.best and branch.info.results == separate.info.results
        for name in (
            "adapters/adapters.safetensors",
            f"checkpoints/{result.budget:06d}/optimizer.safetensors",
        ):
            assert (branch.path / name).read_bytes() == (separate.path / name).read_bytes()
        assert result.loss == [r["loss"] for r in records(separate) if r["kind"] == "eval"][-1]


def test_what_is_finished_stays_and_the_rest_goes_on(compared, tmp_path):
    """Stopped in the trunk, in the making of a branch and in a branch, then continued: the same results."""
    comparison, expected = compared
    config, origins, budgets = saved_settings(comparison.path)
    again = plan_comparison(tmp_path / "again", config, origins, budgets)
    save_settings(again)

    class Interrupted(Exception):
        pass

    def stopping(at):
        def stopped(session, run, resume, policies):
            from mlxsched.training.policies.base import Policy

            class Stop(Policy):
                def after_update(self, progress, made):
                    if progress.update == at:
                        raise Interrupted
                    return ()

            return execute(session, run, resume=resume, policies=[*policies, Stop()])

        return stopped

    for at in (6, 11):
        with pytest.raises(Interrupted):
            run_comparison(again, stopping(at), QUIET)
    half_made = again.path / "000012" / "checkpoints"
    shutil.rmtree(half_made)
    found = run_comparison(again, train, QUIET)
    assert [(one.budget, one.loss, one.best_loss) for one in found] == [
        (one.budget, one.loss, one.best_loss) for one in expected
    ]
    said = []
    assert run_comparison(again, train, said.append) == found and said == []
    with pytest.raises(UsageError, match="--resume"):
        save_settings(again)


def test_budgets_are_updates_or_shares():
    assert parse_budgets("200,100,100", 400) == [100, 200]
    for text in ("", "a", "1", "0.5,2.0", "-3", "1e3", ",".join(map(str, range(2, 60)))):
        with pytest.raises(UsageError, match="--budgets"):
            parse_budgets(text, 400)


@pytest.mark.parametrize(
    ("flags", "budgets", "fix"),
    [
        ({"schedule": "cosine"}, "1.0", "--schedule wsd"),
        ({"schedule": "wsd"}, "2,12", "no room for a warmup"),
        ({"max_time": "1m"}, "1.0", "leave --max-time"),
    ],
)
def test_what_does_not_fit_is_refused(flags, budgets, fix, tmp_path):
    loaded = settings(**flags)
    with pytest.raises(UsageError, match=fix):
        plan_comparison(tmp_path / "x", loaded.config, loaded.origins, budgets)


def test_the_command_prints_the_lengths_and_writes_the_chart(tmp_path, capsys):
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in FLAGS.items()]
    arguments = ["compare", "--trunk", "--budgets=6,8", f"--run-dir={tmp_path / 'c'}", "--plain", *flags]
    assert main([*arguments, "--json", "-o", str(tmp_path / "c.svg")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [one["budget"] for one in result["results"]] == [6, 8]
    assert result["updates_spent"] < result["separate_updates"] == 14
    assert {"schedule", "peak", "seed", "loss"} <= result["results"][0].keys()
    assert result["best"]["wsd"]["loss"] == min(one["loss"] for one in result["results"])
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
    assert main(["compare", "--resume", str(tmp_path / "c")]) == 0  # nothing is left to train
    assert "spent so far" in capsys.readouterr().out


def test_without_a_trunk_the_command_says_what_it_can_do(capsys):
    assert main(["compare"]) == 2
    assert "--trunk" in capsys.readouterr().err
    assert main(["compare", "--resume", "nowhere"]) == 2
    assert "no comparison in nowhere" in capsys.readouterr().err
