"""Finished runs side by side: what they differ in, and what can be said of them."""

from __future__ import annotations

import json

import pytest

from mlxsched.cli.main import main
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, UpdateMade


@pytest.fixture
def make(tmp_path):
    def made(name, loss, status="finished", data=None, **config):
        run = RunDirectory.create(
            tmp_path / name,
            config={"schedule": "linear", "seed": 0, **config},
            origins={},
            plan={"updates": 2, "valid_rows": 100, "peak": 1e-3, "schedule": {"name": "warmup_linear"}},
            versions={},
            data={"fingerprint": "rows", **(data or {})},
            model={"fingerprint": "tiny"},
        )
        with run.lock():
            run.metrics.record(UpdateMade(0, 2.0, 1e-3, seconds=0.5))
            run.metrics.record(UpdateMade(1, 1.0, 5e-4, seconds=0.5))
            if loss is None:
                run.update_info(status=status, update=2)
                return str(run.path)
            run.metrics.record(Evaluated(1, loss))
            run.metrics.record(Evaluated(2, loss + 0.1))
            results = {"after": {"loss": loss, "exact_match": 0.5}}
            run.update_info(status=status, update=2, best={"update": 1, "loss": loss}, results=results)
        return str(run.path)

    return made


def test_runs_that_differ_in_the_seed_alone_repeat_each_other(make, capsys):
    runs = [
        make(f"{rank}-{seed}", 0.4 + rank / 100 + seed / 50, rank=rank, seed=seed)
        for rank in (8, 16)
        for seed in (0, 1)
    ]
    assert main(["compare", *runs, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["differing"] == ["rank"]
    assert [one["variant"] for one in shown["results"][1:3]] == ["linear, rank=8", "linear, rank=16"]
    assert {"schedule", "peak", "seed", "loss", "last_loss", "run"} <= shown["results"][0].keys()
    assert shown["best"]["linear, rank=8"]["loss"] == pytest.approx(0.49)
    assert shown["best"]["linear, rank=16"]["significant"] is True


def test_the_table_and_the_picture(make, tmp_path, capsys):
    runs = [make("one", 0.4), make("two", 0.5, schedule="cosine")]
    assert main(["compare", *runs, "-o", str(tmp_path / "r.svg")]) == 0
    captured = capsys.readouterr()
    assert captured.out.index("one ") < captured.out.index("two ")
    assert (
        "50.0%" in captured.out and "0.6000" in captured.out
    )  # exact match, and the last loss of the second
    assert "single seed" in captured.out
    assert "Warning" not in captured.err and (tmp_path / "r.svg").is_file()


def test_a_run_without_a_validation_loss_is_not_ranked_by_its_training_loss(make, capsys):
    runs = [
        make("one", 1.8),
        make("two", None, schedule="cosine"),
        make("three", 1.9, "failed", schedule="wsd"),
    ]
    assert main(["compare", *runs, "--json"]) == 0
    captured = capsys.readouterr()
    shown = json.loads(captured.out)
    assert [one["loss"] for one in shown["results"]] == [1.8, None, 1.9]  # the training loss of two is 1.5
    assert shown["best"].keys() == {"linear", "wsd"}
    assert "two has no validation loss" in captured.err and "three is failed" in captured.err


def test_runs_on_other_data_are_not_comparable(make, tmp_path, capsys):
    runs = [make("one", 0.4), make("two", 0.5)]
    other = RunDirectory.open(tmp_path / "two")
    with other.lock():
        other.update_info(data={"fingerprint": "others"})
    assert_not_ranked(runs, "don't have the same data", capsys)


def test_runs_with_the_same_validation_rows_are_comparable_whatever_they_train_on(make, capsys):
    runs = [
        make("less", 0.5, data={"fingerprint": "few", "valid": "held"}),
        make("more", 0.4, data={"fingerprint": "many", "valid": "held"}),
        make("joined", 0.3, data={"fingerprint": "other", "valid": "held"}, join_turns=True),
    ]
    assert main(["compare", *runs, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["comparable"] and shown["warnings"] == []
    assert list(shown["best"]) == [
        "linear, join_turns=True, rows=other",
        "linear, join_turns=None, rows=many",
        "linear, join_turns=None, rows=few",
    ]


def test_a_run_that_a_time_limit_ended_is_shown_with_the_epochs_that_were_made(make, tmp_path, capsys):
    runs = [make("timed", 0.4, epochs=2.0, max_time=60), make("whole", 0.5, epochs=3.0)]
    timed = RunDirectory.open(tmp_path / "timed")
    with timed.lock():
        timed.update_info(plan={**timed.info.plan, "updates_per_epoch": 8, "assumed": True})
    assert main(["compare", *runs]) == 0
    shown = capsys.readouterr().out
    assert "0.25" in shown and "2.0" not in shown
    assert main(["compare", *runs, "--json"]) == 0
    variants = [one["variant"] for one in json.loads(capsys.readouterr().out)["results"]]
    assert variants == ["linear, max_time=60", "linear, epochs=3.0"]


def test_settings_that_do_not_fit_are_listed_below_with_nested_keys(make, capsys):
    runs = [
        make(
            "one", 0.4, lora_parameters={"rank": 8, "scale": 20.0}, memory=6_000_000_000, optimizer="a" * 60
        ),
        make("two", 0.5, lora_parameters={"rank": 16, "scale": 20.0}, optimizer="b" * 60),
    ]
    assert main(["compare", *runs]) == 0
    out = capsys.readouterr().out
    assert "lora_parameters.rank: 8, 16" in out and "memory: 6e9, -" in out
    assert "scale" not in out and "None" not in out
    assert "one against two" in out  # the verdict does not repeat the settings


def split_by(seed):
    return {"fingerprint": f"by {seed}", "valid": f"held out by {seed}", "split_by_seed": True}


def test_repetitions_on_one_file_are_ranked_with_a_warning(make, capsys):
    runs = [
        make(f"{rank}-{seed}", 0.4 + rank / 100 + seed, rank=rank, seed=seed, data=split_by(seed))
        for rank in (8, 16)
        for seed in (0, 1)
    ]
    assert main(["compare", *runs, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["comparable"] and shown["differing"] == ["rank"]
    assert shown["best"]["linear, rank=16"]["difference"] == pytest.approx(0.08)
    (warning,) = shown["warnings"]
    assert "the seed decides which rows" in warning and "valid.jsonl" in warning


@pytest.mark.parametrize("by_seed", [False, True])
def test_other_validation_rows_are_not_comparable(make, capsys, by_seed):
    """Validation rows differ: those of different files, and of one file if the variants have different seeds."""
    runs = [
        make(name, 0.4, rank=rank, seed=seed, data={**split_by(seed), "split_by_seed": by_seed})
        for name, rank, seed in (("one", 8, 0), ("two", 16, 1))
    ]
    assert_not_ranked(runs, "don't have the same validation rows", capsys)


def test_runs_with_other_validation_rows_are_not_comparable(make, capsys):
    runs = [make("one", 0.5, val_batches=4, batch_size=2), make("two", 0.4, val_batches=-1, batch_size=2)]
    assert_not_ranked(runs, "don't have the same number of validation rows (--val-batches), so", capsys)
    again = [*runs[:1], make("three", 0.6, val_batches=8, batch_size=1)]  # the same 8 rows
    assert main(["compare", *again, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparable"]


def test_validation_rows_of_other_files_are_named_once(make, capsys):
    runs = [
        make(name, loss, val_batches=n, batch_size=2, data={"valid": name})
        for n, (name, loss) in enumerate((("one", 0.5), ("two", 0.4)), 1)
    ]
    assert_not_ranked(runs, "don't have the same validation rows, so their losses", capsys)


def assert_not_ranked(runs, why, capsys):
    assert main(["compare", *runs]) == 0
    captured = capsys.readouterr()
    assert why in captured.err and "against" not in captured.out
    assert captured.out.index("one ") < captured.out.index("two ")
    assert main(["compare", *runs, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["comparable"], shown["best"], shown["verdict"], len(shown["results"])) == (False, {}, [], 2)
    assert why in shown["warnings"][0]
