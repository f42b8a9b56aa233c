"""What a word of the command line stands for: each kind, and the order among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlxsched.errors import ConfigError, ScheduleError, UsageError
from mlxsched.render.sources import Planned, Recorded, Shape, find_source
from mlxsched.runs.directory import RunDirectory
from mlxsched.schedules import parse, warmup_cosine, warmup_linear, wsd

MLX_LM = """\
model: tiny
learning_rate: 1e-5
iters: 1000
grad_accumulation_steps: 4
lr_schedule:
  name: cosine_decay
  warmup: 100
  warmup_init: 1e-7
  arguments: [1e-5, 1000, 1e-7]
"""


def planned(text: str, **shape: float) -> Planned:
    source = find_source(text, Shape(**shape))  # type: ignore[arg-type]
    assert isinstance(source, Planned)
    return source


def test_a_spec_that_says_all_is_taken_as_it_is() -> None:
    text = "warmup_cosine(peak=1e-3, steps=50, warmup=5)"
    assert planned(text).schedule == warmup_cosine(1e-3, 50, 5)
    assert planned(text).steps == 50
    assert planned(text, steps=80).steps == 80


def test_a_spec_that_leaves_something_out_is_filled_in() -> None:
    assert planned("wsd(decay=0.5)", peak=1e-3, steps=40).schedule == wsd(1e-3, 40, decay=0.5)
    assert planned("warmup_linear(peak=1e-3)", steps=40, warmup=4).schedule == warmup_linear(1e-3, 40, 4)


def test_a_family_takes_the_flags_and_says_what_it_assumed() -> None:
    source = planned("linear", peak=1e-3, steps=40, warmup=4, end=1e-5)
    assert (source.schedule, source.steps, source.note) == (warmup_linear(1e-3, 40, 4, 1e-5), 40, "")
    assert planned("linear", peak=1e-3).note == "assumed --steps 1000, --warmup 0.1"


@pytest.mark.parametrize("name", ["linear", "cosine", "constant", "wsd", "one_cycle"])
def test_every_family_can_be_drawn_without_a_flag(name: str) -> None:
    source = planned(name)
    assert source.schedule(source.steps // 2) > 0


def test_a_name_that_needs_more_is_drawn_from_its_example() -> None:
    source = planned("table")
    assert source.note.startswith("drawn from its example, table(values=[")
    with pytest.raises(ScheduleError, match="table needs `values`"):
        find_source("table", Shape(peak=1e-3))


def test_another_librarys_name_is_a_name_and_a_spec() -> None:
    by_name, by_spec = planned("torch.StepLR"), planned("torch.StepLR(1e-3, step_size=300)")
    assert by_name.schedule == by_spec.schedule
    assert [by_name.schedule(step) for step in (0, 299, 300, 600)] == pytest.approx([1e-3, 1e-3, 1e-4, 1e-5])


def test_a_preset_is_what_training_with_it_would_do() -> None:
    from mlxsched.config.load import load_config

    config = load_config(preset="laptop").config
    source = planned("laptop", steps=500)
    assert max(source.schedule(step) for step in range(501)) == config.learning_rate
    assert planned("laptop", peak=0.5, steps=500).schedule(100) > config.learning_rate


@pytest.mark.parametrize("iters", [400, 100, 3])
def test_a_preset_is_drawn_as_it_would_be_trained(tmp_path: Path, iters: int) -> None:
    # plot used to draw a warmup of 100 updates where the run had 40, and to fail for a run of 100 updates.
    from mlxsched.config.load import load_config
    from mlxsched.planning.schedule import resolve_schedule

    path = tmp_path / "run.yaml"
    path.write_text(f"preset: lora\niters: {iters}\n")
    loaded = load_config(file=path)
    expected = resolve_schedule(loaded.config, loaded.origins, iters)
    source = planned(str(path))
    assert (source.schedule, source.steps) == (expected.schedule, iters)
    assert f"warmup shortened from 100 to {max(iters // 10, 1)}" in source.note


def test_the_length_comes_from_the_rows_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n' * 100)
    path = tmp_path / "run.yaml"
    path.write_text(f"data: {tmp_path}\nepochs: 2\nbatch_size: 8\n")
    source = planned(str(path))
    assert source.steps == source.schedule.steps == 26
    assert source.note.startswith("26 updates on the 100 rows of")


def test_a_length_that_is_not_known_is_assumed_and_said(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("data: ./nowhere.jsonl\nschedule: linear\n")
    assert "drawn over 1000 updates (--steps)" in planned(str(path)).note
    assert planned(str(path), steps=300).note == ""


def test_an_mlx_lm_configuration_gives_mlx_lms_own_values(tmp_path: Path) -> None:
    from mlx_lm.tuner.utils import build_schedule

    path = tmp_path / "lora.yaml"
    path.write_text(MLX_LM)
    source = planned(str(path))
    theirs = build_schedule(
        {"name": "cosine_decay", "warmup": 100, "warmup_init": 1e-7, "arguments": [1e-5, 1000, 1e-7]}
    )
    assert source.steps == 250  # 1000 iterations, an update every 4
    for step in (0, 1, 50, 99, 100, 101, 102, 250, 600, 1100, 2000):
        assert source.schedule(step) == pytest.approx(float(theirs(step)), rel=1e-5)


def test_a_yaml_file_may_hold_a_schedule_in_dictionary_form(tmp_path: Path) -> None:
    path = tmp_path / "schedule.yaml"
    path.write_text("name: wsd\npeak: 1e-3\nsteps: 200\nwarmup: 20\n")
    assert planned(str(path)).schedule == wsd(1e-3, 200, 20)
    path.write_text("name: wsd\npeak: 1e-3\n")
    assert planned(str(path), steps=70).schedule == wsd(1e-3, 70)


def test_a_yaml_file_may_hold_mlx_lms_block_alone(tmp_path: Path) -> None:
    path = tmp_path / "block.yaml"
    path.write_text("name: cosine_decay\narguments: [1e-3, 100]\n")
    assert planned(str(path)).schedule(50) == pytest.approx(5e-4)


def test_a_runs_configuration_with_a_name_is_no_schedule(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("name: tuesday\nschedule: wsd\nlearning_rate: 1e-3\nwarmup: 10\niters: 100\n")
    source = planned(str(path))
    assert (source.steps, source.schedule(50)) == (100, 1e-3)


def test_mistakes_in_a_file_are_pointed_at(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("learning_rat: 1e-3\n")
    with pytest.raises(ConfigError, match=r"bad\.yaml:1:1: .*learning_rate"):
        find_source(str(path), Shape())
    path.write_text("name: wsdd\npeak: 1e-3\n")
    with pytest.raises(ScheduleError, match="Did you mean 'wsd'"):
        find_source(str(path), Shape())


def test_a_directory_is_a_run(tmp_path: Path) -> None:
    assert find_source(str(tmp_path), Shape()) == Recorded(str(tmp_path), tmp_path)


def test_a_name_goes_before_a_file_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wsd").mkdir()
    (tmp_path / "laptop").mkdir()
    assert isinstance(find_source("wsd", Shape()), Planned)
    assert isinstance(find_source("laptop", Shape()), Planned)
    assert isinstance(find_source("./wsd", Shape()), Recorded)
    (tmp_path / "wsd (1)").mkdir()
    assert isinstance(find_source("./wsd (1)", Shape()), Recorded)


def test_an_unknown_word_gets_the_nearest_known_one() -> None:
    with pytest.raises(UsageError, match=r"'laptob' is neither .* Did you mean 'laptop'"):
        find_source("laptob", Shape())
    with pytest.raises(ScheduleError, match="Did you mean 'peak'"):
        find_source("warmup_linear(peek=1, steps=10)", Shape())
    with pytest.raises(ScheduleError, match="warmup"):
        find_source("warmup_linear(peak=1, steps=10, warmup=10)", Shape())


def test_specs_are_not_evaluated() -> None:
    with pytest.raises(ScheduleError):
        find_source("__import__('os').system('true')", Shape())


def test_the_repr_of_a_schedule_is_a_spec() -> None:
    schedule = wsd(2e-4, 400, 0.1)
    assert planned(repr(schedule)).schedule == parse(repr(schedule)) == schedule


def test_the_error_for_an_unknown_name_suggests_a_schedule_or_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    RunDirectory.create(Path("runs/french"), config={}, origins={}, plan={}, versions={})
    for word, near in (("frnch", "runs/french"), ("cosin", "cosine")):
        with pytest.raises(UsageError, match=f"Did you mean '{near}'"):
            find_source(word, Shape())
