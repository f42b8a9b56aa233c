"""The table of a plan: it leaves out what a short run does not reach."""

from __future__ import annotations

import pytest

from mlxsched.cli.plan_view import plan_lines, show_plan
from mlxsched.config import load_config
from mlxsched.training.session import Session, prepare


@pytest.fixture(scope="module")
def short() -> Session:
    loaded = load_config(preset="large-dataset", flags={"iters": 80, "val_batches": 1})
    return prepare(loaded.config, loaded.origins)


def test_a_checkpoint_that_the_run_is_too_short_for_is_the_last_one(short: Session) -> None:
    assert short.plan.save_every > short.plan.updates
    assert dict(plan_lines(short))["evaluation"].endswith("; a checkpoint at the end")


def test_a_shortened_warmup_is_explained_in_the_table_and_not_noted(
    short: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = short.plan.warmup
    update = "update" if limit == 1 else "updates"
    expected = f"warmup of {limit} {update} (instead of 1,000, since the run is short)"
    assert expected in dict(plan_lines(short))["learning rate"]
    show_plan(short, stderr=True)
    assert "shortened" not in capsys.readouterr().err
    assert any("warmup shortened" in note for note in short.plan.notes)  # for scripts


def test_the_schedule_that_replaces_the_preset_s_is_named(short: Session) -> None:
    loaded = load_config(preset="large-dataset", flags={"iters": 80, "until_plateau": True})
    made = prepare(loaded.config, loaded.origins, loaded=short.loaded, dataset=short.dataset)
    assert dict(plan_lines(made))["learning rate"].startswith("wsd: ")


def test_the_length_says_how_iterations_become_updates(short: Session) -> None:
    assert "iterations" not in dict(plan_lines(short))["length"]  # each is an update
    loaded = load_config(preset="large-dataset", flags={"iters": 30, "grad_accumulation_steps": 4})
    made = prepare(loaded.config, loaded.origins, loaded=short.loaded, dataset=short.dataset)
    length = dict(plan_lines(made))["length"]
    assert length.startswith("8 updates of 64 rows (30 iterations of 16 rows): ")


def test_rates_that_are_computed_for_an_assumed_length_say_so(short: Session) -> None:
    assert "assumed" not in dict(plan_lines(short))["learning rate"]
    loaded = load_config(preset="large-dataset", flags={"max_time": 60})
    made = prepare(loaded.config, loaded.origins, loaded=short.loaded, dataset=short.dataset)
    assert dict(plan_lines(made))["learning rate"].endswith(
        "; computed for an assumed length of 1,000 updates"
    )
