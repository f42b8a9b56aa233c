"""A grid of schedules and peaks: which trials it takes, and that a trial is the run that it stands for."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import pytest

from mlxsched.cli.compare_view import show_comparison
from mlxsched.cli.main import main
from mlxsched.config import load_config
from mlxsched.errors import RunError, Stopped, UsageError
from mlxsched.experiments.grid import (
    Cell,
    Row,
    Trial,
    Variant,
    combinations,
    next_cells,
    parse_peaks,
    parse_seeds,
    updates_of,
    variant_name,
)
from mlxsched.experiments.grid_run import (
    Settings,
    plan_grid,
    read_results,
    read_settings,
    run_grid,
    save_settings,
)
from mlxsched.experiments.ranking import Measured, points_of
from mlxsched.runs.lock import RunLock
from mlxsched.training.run import create_run, execute
from mlxsched.training.session import prepare

FLAGS = {"iters": 3, "batch_size": 2, "val_batches": 2, "warmup": 1}
PEAKS, SEEDS = (1e-3, 4e-3), (0, 1)


def variants(*schedules, **flags):
    made = []
    for changes in combinations({"schedule": schedules}):
        loaded = load_config(flags={**FLAGS, **flags, **changes})
        made.append(Variant(variant_name(changes), loaded.config, loaded.origins, changes))
    return tuple(made)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison that was stopped after two trials and then continued; gives it and its trials."""
    path = tmp_path_factory.mktemp("grid") / "c"
    settings = Settings(variants("linear", "constant(peak=2e-3)"), PEAKS, SEEDS)
    comparison = plan_grid(path, settings)
    save_settings(comparison)
    told = []
    with pytest.raises(Stopped):
        run_grid(comparison, told.append, stop_signal=lambda: 2 if len(told) == 2 else 0)
    assert list(read_results(path).values()) == told and len(told) == 2
    return comparison, run_grid(comparison, told.append), told


def test_every_variant_gets_every_peak_with_every_seed_and_a_fixed_rate_gets_one(compared):
    _, done, told = compared
    cells = {(one.variant, one.peak, one.seed) for one in done}
    expected = {("linear", peak, seed) for peak in PEAKS for seed in SEEDS}
    assert cells == expected | {("constant(peak=2e-3)", 2e-3, seed) for seed in SEEDS}
    assert len(told) == len(done) == 6  # none twice, although it was stopped in between


def test_a_trial_is_the_run_that_it_stands_for(compared, tmp_path):
    _, done, _ = compared
    loaded = load_config(flags={**FLAGS, "schedule": "linear", "learning_rate": 4e-3, "seed": 1})
    session = prepare(loaded.config, loaded.origins)
    run = create_run(session, tmp_path / "run")
    execute(session, run)
    last = [record["loss"] for record in run.read_metrics() if record["kind"] == "eval"][-1]
    assert done[Cell("linear", 4e-3, 1, 3)].loss == pytest.approx(last, rel=1e-6)


def test_a_full_trial_begins_with_the_weights_of_the_model_whatever_was_trained_before(tmp_path):
    few = {"fine_tune_type": "full", "num_layers": 1, "iters": 1, "warmup": 0, "val_batches": 1}

    def losses(seeds):
        settings = Settings(variants("linear", **few), (1e-3,), seeds)
        comparison = plan_grid(tmp_path / str(len(seeds)), settings)
        save_settings(comparison)
        return {cell.seed: trial.loss for cell, trial in run_grid(comparison).items()}

    assert losses((1, 2))[2] == losses((2,))[2]


def test_the_directory_says_what_was_compared(compared):
    comparison, done, _ = compared
    again = read_settings(comparison.path)
    assert again.peaks == PEAKS and again.seeds == SEEDS
    assert [one.name for one in again.variants] == ["linear", "constant(peak=2e-3)"]
    assert again.variants[0].config == comparison.settings.variants[0].config
    assert read_results(comparison.path) == done
    with pytest.raises(UsageError, match="--resume"):
        save_settings(comparison)


def test_the_command_shows_what_is_done(compared, tmp_path, capsys):
    path = tmp_path / "c"
    shutil.copytree(compared[0].path, path)
    assert main(["compare", "--resume", str(path), "--json", "-o", str(tmp_path / "c.svg")]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert len(shown["results"]) == 6
    assert {"schedule", "peak", "seed", "loss", "variant", "updates"} <= shown["results"][0].keys()
    assert shown["best"].keys() == {"linear", "constant(peak=2e-3)"}
    assert len(shown["best"]["linear"]["interval"]) == 2 and len(shown["verdict"]) == 1
    assert (tmp_path / "c.svg").read_text().startswith("<?xml")
    assert main(["compare", "--resume", str(path)]) == 0
    out = capsys.readouterr().out
    assert "Best of each" in out and "Validation loss at each peak" in out and "significant" in out
    assert "try further ones: mlxsched compare --resume" in out


def test_other_data_or_a_damaged_file_is_refused(compared, tmp_path, capsys):
    path = tmp_path / "c"
    shutil.copytree(compared[0].path, path)
    settings = json.loads((path / "compare.json").read_text())
    (path / "compare.json").write_text(json.dumps({**settings, "data": "other"}))
    assert main(["compare", "--resume", str(path)]) == 2
    assert "the data changed" in capsys.readouterr().err
    (path / "compare.json").write_text(json.dumps({**settings, "peaks": []}))
    assert main(["compare", "--resume", str(path)]) == 2
    (path / "compare.json").write_text(
        json.dumps({**settings, "variants": [{**settings["variants"][0], "origins": []}]})
    )
    with pytest.raises(UsageError, match="damaged"):
        read_settings(path)
    assert main(["compare", "--resume", str(path), "--iters", "9"]) == 2
    assert "leave --iters out" in capsys.readouterr().err
    (path / "compare.json").write_text(json.dumps(settings))
    (path / "results.json").write_text('{"trials": [{"seed": "x"}]}')
    assert main(["compare", "--resume", str(path)]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_refused_resume_changes_nothing(compared, tmp_path, capsys):
    path = tmp_path / "c"
    shutil.copytree(compared[0].path, path)
    before = (path / "compare.json").read_text()
    with RunLock(path):
        assert main(["compare", "--resume", str(path), "--seeds", "0,1,2"]) == 2
    assert "in use" in capsys.readouterr().err
    assert (path / "compare.json").read_text() == before


def test_peaks_that_two_processes_add_are_both_kept(compared, tmp_path):
    comparison = replace(compared[0], path=tmp_path / "c")
    shutil.copytree(compared[0].path, comparison.path)
    for peak in (2e-3, 8e-3):  # both were planned before the other one had written
        more = replace(comparison.settings, peaks=(*PEAKS, peak), seeds=(*SEEDS, int(1e3 * peak)))
        run_grid(replace(comparison, settings=more, rows=()))
    kept = read_settings(comparison.path)
    assert kept.peaks == (1e-3, 2e-3, 4e-3, 8e-3) and kept.seeds == (0, 1, 2, 8)


def test_where_everything_diverged_the_result_is_printed_and_the_exit_code_is_1(capsys):
    points = points_of([Measured("linear", 1e-3, 0, None)])
    with pytest.raises(RunError, match="Lower --peaks") as raised:
        show_comparison(points, {}, {"results": []}, as_json=True, output=None)
    assert raised.value.exit_code == 1
    assert json.loads(capsys.readouterr().out) == {"results": [], "best": {}, "verdict": []}


def test_the_next_command_is_quoted_for_a_shell(capsys):
    points = points_of([Measured("linear", peak, 0, peak) for peak in PEAKS])
    show_comparison(points, {}, {"path": "my runs/c"}, as_json=False, output=None)
    assert "--resume 'my runs/c' --peaks" in " ".join(capsys.readouterr().out.split())


def test_a_setting_that_a_comparison_cannot_have_is_refused_where_it_comes_from(tmp_path):
    first, second = variants("linear")[0], variants("cosine", patience=2)[0]
    for origin, fix in {
        "preset mine": "preset mine sets patience, so choose another --preset",
        "run.yaml:3": "remove patience at run.yaml:3",
        "--patience": "leave --patience out",
    }.items():
        late = replace(second, origins={**second.origins, "patience": origin})
        with pytest.raises(UsageError, match=re.escape(fix)):
            plan_grid(tmp_path / "c", Settings((first, late), PEAKS, SEEDS))


def made(cells, loss_of):
    return {cell: Trial(cell, loss_of(cell)) for cell in cells}


def test_halving_gives_whole_trials_to_the_better_peaks():
    rows, seeds = [Row("a", "", tuple(1e-4 * 2**n for n in range(6)), 80)], (0, 1)
    done: dict[Cell, Trial] = {}
    sizes = []
    while cells := next_cells(rows, seeds, True, done):
        sizes.append([(cell.updates, cell.seed) for cell in cells])
        done |= made(cells, lambda cell: abs(cell.peak - 4e-4))
    assert sizes == [[(20, 0)] * 6, [(40, 0)] * 3, [(80, 0)] * 2 + [(80, 1)] * 2]
    assert 4e-4 in {cell.peak for cell in done if cell.updates == 80}
    assert sum(cell.updates for cell in done) == updates_of(rows, seeds, True)
    assert updates_of(rows, seeds, False) == 6 * 2 * 80


def test_halving_trains_what_it_plans(tmp_path):
    settings = Settings(variants("linear", iters=16, num_layers=1), (1e-3, 3e-3, 5.0), (0,), True)
    comparison = plan_grid(tmp_path / "c", settings)
    save_settings(comparison)
    done = run_grid(comparison)
    assert sum(cell.updates for cell in done) <= comparison.updates
    assert {(cell.peak, cell.updates) for cell in done} == {
        *((peak, 8) for peak in settings.peaks),
        *((peak, 16) for peak in settings.peaks[:2]),
    }
    assert min(done.values(), key=lambda one: one.loss or 99.0).cell.updates == 16


def test_a_diverged_trial_loses_and_a_short_run_is_not_halved():
    rows = [Row("a", "", (1e-4, 1e-3, 1e-2), 80)]
    done = made(next_cells(rows, (0,), True, {}), lambda cell: None if cell.peak == 1e-2 else cell.peak)
    assert {cell.peak for cell in next_cells(rows, (0,), True, done)} == {1e-4, 1e-3}
    assert {cell.updates for cell in next_cells([Row("a", "", (1e-4, 1e-3), 9)], (0,), True, {})} == {9}


def test_trials_of_one_seed_and_setting_follow_each_other():
    rows = [Row("a", "rank 8", (1.0, 2.0), 9), Row("b", "rank 9", (1.0,), 9), Row("c", "rank 8", (1.0,), 9)]
    order = [(cell.seed, cell.variant) for cell in next_cells(rows, (5, 3), False, {})]
    assert order == [(5, "a"), (5, "a"), (5, "c"), (5, "b"), (3, "a"), (3, "a"), (3, "c"), (3, "b")]


def test_a_shorter_trial_goes_through_the_whole_shape(compared):
    comparison, _, _ = compared
    whole = comparison.schedule(Cell("linear", 1e-3, 0, 3))
    short = comparison.schedule(Cell("linear", 1e-3, 0, 2))
    assert [short(0), short(1)] == [whole(0), whole(1)]


def test_a_misspelled_schedule_is_reported_with_the_flag_that_was_given(capsys):
    assert main(["compare", "--schedules", "linear,cosin"]) == 2
    assert "--schedules: no schedule is called 'cosin'" in capsys.readouterr().err


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    for text in ("", "a,b", "0", "-1e-3", "nan"):
        with pytest.raises(UsageError, match="--peaks"):
            parse_peaks(text)
    for text in ("", "0", "00", "x", "-1", "1.5"):
        with pytest.raises(UsageError, match="--seeds"):
            parse_seeds(text, 0)
    commands = {
        "--vary model=a,b": "keeps model and data the same",
        "--vary learning_rate=1": "give --peaks",
        "--vary rnk=1": "Did you mean",
        "--vary rank=": "need values",
        "--schedules linear --trunk": "leave --schedules",
        "--schedules linear --max-time 1m": "one budget",
        "--schedules linear --vary warmup=0.5 --peaks x": "--peaks",
        "runs/one": "two runs or more",
        "runs/one runs/two --seeds 2": "leave --seeds out: finished runs",
        "--resume nowhere --preset lora": "leave --preset out",
        "--trunk --max-time 1m": "lengths from --budgets",
        "--trunk --peaks 1e-3": "leave --peaks out",
        "--schedules linear --budgets 10": "leave --budgets out",
    }
    for flags, message in commands.items():
        assert main(["compare", *flags.split()]) == 2, flags
        said = capsys.readouterr().err
        assert message in said and "Loading" not in said, flags
