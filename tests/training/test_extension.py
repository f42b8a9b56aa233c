"""A run that goes on: the same, bit for bit, as one that was planned so long, wherever its shape allows that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mlxsched.cli.extension_view import extension_lines
from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.extension import Amount, Wanted, plan_cooldown, plan_extension, record
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare

SMALL = {
    "batch_size": 4,
    "val_batches": 2,
    "steps_per_eval": 4,
    "save_every": 5,
    "test": False,
    "keep_last": 1,
    "warmup": 2,
    "learning_rate": 1e-3,
}
WSD = {**SMALL, "schedule": "wsd(decay=0.5)"}
CONSTANT = {**SMALL, "schedule": "constant"}
COSINE = {**SMALL, "schedule": "cosine"}
ACCUMULATED = {**CONSTANT, "batch_size": 2, "grad_accumulation_steps": 2, "save_every": 1, "keep_last": 3}
MEASURED = ("seconds", "tokens_per_second", "peak_memory_gb")


class Runs:
    """Runs of this module, each trained once; a test works on a copy."""

    def __init__(self, root: Path) -> None:
        self.root, self.count = root, 0

    def trained(self, name: str, stop: int | None = None, **flags: object) -> Path:
        """A run that has finished, or that was killed after ``stop`` updates."""
        path = self.root / name
        if not path.exists():
            session = planned(flags)
            run = create_run(session, path)
            execute(session, run) if stop is None else some_updates(session, run, stop)
        return path

    def copy(self, path: Path) -> RunDirectory:
        self.count += 1
        return RunDirectory.open(shutil.copytree(path, self.root / f"copy-{self.count}"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return Runs(tmp_path_factory.mktemp("extension"))


def planned(flags):
    """A session with the model and the rows of an earlier one: loading them takes longer than the training."""
    loaded = load_config(flags=flags)
    made = prepare(loaded.config, loaded.origins, **KEPT)
    KEPT.update(loaded=made.loaded, dataset=made.dataset)
    return made


KEPT: dict[str, object] = {}


def session_of(run: RunDirectory):
    """The session of a process that goes on with ``run``."""
    keys = {*SMALL, "schedule", "iters", "grad_accumulation_steps", "max_time"}
    return planned(
        {key: value for key, value in run.info.config.items() if key in keys and value is not None}
    )


def some_updates(session, run, count, *, resume=False):
    """Make ``count`` updates, then let go of the run as a kill would."""
    with run.lock():
        loop, measurement = start(session, run, sinks_of(run), resume=resume)
        measurement.before()
        for _ in range(count):
            loop.step()


def extend(run: RunDirectory, *, kill: int | None = None, **wanted: object):
    """Extend ``run``; with ``kill``, a process is killed after so many updates, and another one resumes."""
    session = session_of(run)
    extension = plan_extension(session, run, Wanted(**wanted))
    return go_on(session, run, extension, kill)


def go_on(session, run, extension, kill=None):
    with run.lock():
        record(run, extension)
    if kill is not None:
        some_updates(session, run, kill, resume=True)
    again = RunDirectory.open(run.path)
    execute(session_of(again), again, resume=True)
    return extension


def rates(path: Path) -> list[float]:
    return [record["lr"] for record in RunDirectory.open(path).read_metrics() if record["kind"] == "train"]


def records(path: Path) -> list[dict[str, object]]:
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in MEASURED} for line in lines]


def assert_same(path: Path, planned: Path) -> None:
    """Adapters, optimizer state, records and results are those of the run that was planned so long."""
    for name in ("adapters/adapters.safetensors", "adapters_final/adapters.safetensors"):
        assert (path / name).exists() == (planned / name).exists()
        if (planned / name).exists():
            assert (path / name).read_bytes() == (planned / name).read_bytes(), name
    assert records(path) == records(planned)
    last = RunDirectory.open(planned).checkpoints.updates()[-1]
    for name in ("adapters.safetensors", "optimizer.safetensors"):
        place = f"checkpoints/{last:06d}/{name}"
        assert (path / place).read_bytes() == (planned / place).read_bytes(), name
    ours, theirs = RunDirectory.open(path).info, RunDirectory.open(planned).info
    assert (ours.best, ours.results, ours.status) == (theirs.best, theirs.results, "finished")


@pytest.mark.parametrize("stop", [None, 3, 11])
def test_an_extended_wsd_run_is_one_that_was_planned_so_long(runs, stop):
    """Finished; killed in the stable part, and in the cooldown with its checkpoint of update 6 kept by itself."""
    run = runs.copy(runs.trained(f"wsd-{stop}", stop, iters=12, **WSD))
    extension = extend(run, steps=Amount(6, more=True))
    assert extension.exact and extension.request.at == (0 if stop == 3 else 6)
    assert_same(run.path, runs.trained("wsd-long", iters=18, **WSD))


@pytest.mark.parametrize("kill", [0, 5])
def test_an_extension_that_was_killed_is_resumed_exactly(runs, kill):
    run = runs.copy(runs.trained("wsd-None", iters=12, **WSD))
    extend(run, kill=kill, steps=Amount(18, more=False))
    assert_same(run.path, runs.trained("wsd-long", iters=18, **WSD))


def test_a_run_can_be_extended_again(runs):
    run = runs.copy(runs.trained("wsd-None", iters=12, **WSD))
    extend(run, steps=Amount(15, more=False))
    again = RunDirectory.open(run.path)
    assert extend(again, steps=Amount(18, more=False)).how == "on"
    assert_same(run.path, runs.trained("wsd-long", iters=18, **WSD))
    assert [request.kept for request in RunDirectory.open(run.path).info.requests] == [
        "earlier/000012",
        "earlier/000015",
    ]


def test_the_run_as_it_was_is_kept_with_its_adapter_and_records(runs):
    finished = runs.trained("wsd-None", iters=12, **WSD)
    run = runs.copy(finished)
    extend(run, steps=Amount(6, more=True))
    kept = run.path / "earlier/000012"
    for name in ("adapters/adapters.safetensors", "metrics.jsonl"):
        assert (kept / name).read_bytes() == (finished / name).read_bytes()
    assert RunDirectory.open(kept).info.results == RunDirectory.open(finished).info.results


def test_a_constant_run_goes_on_from_its_end(runs):
    run = runs.copy(runs.trained("constant", iters=8, **CONSTANT))
    extension = extend(run, epochs=None, steps=Amount(4, more=True))
    assert (extension.how, extension.request.at) == ("on", 8)
    assert_same(run.path, runs.trained("constant-long", iters=12, **CONSTANT))


def test_the_shorter_last_update_of_a_plan_is_made_again_in_full(runs):
    run = runs.copy(runs.trained("accumulated", iters=9, **ACCUMULATED))
    extension = extend(run, steps=Amount(2, more=True))
    assert (extension.how, extension.request.at, extension.horizon.updates) == ("on", 4, 7)
    assert_same(run.path, runs.trained("accumulated-long", iters=14, **ACCUMULATED))


def test_a_finished_cosine_run_is_warmed_up_again(runs):
    run = runs.copy(runs.trained("cosine", iters=8, **COSINE))
    extension = extend(run, kill=3, steps=Amount(12, more=True))
    made = rates(run.path)
    assert (extension.how, extension.request.at, len(made)) == ("rewarm", 8, 20)
    assert made[:8] == rates(runs.trained("cosine", iters=8, **COSINE))
    assert made[8] > 0 and max(made[8:]) == 5e-4 and made[-1] == pytest.approx(5e-4 / 11)
    assert RunDirectory.open(run.path / "earlier/000008").info.status == "finished"


def test_the_peak_of_a_second_warmup_can_be_given(runs):
    run = runs.copy(runs.trained("cosine", iters=8, **COSINE))
    extension = plan_extension(session_of(run), run, Wanted(steps=Amount(12, more=True), peak=2e-4))
    assert max(extension.rate(update) for update in range(8, 20)) == 2e-4


@pytest.mark.parametrize(("peak", "then"), [(2e-4, "rises again"), (1e-6, "falls further")])
def test_what_is_said_of_the_result_is_what_the_rates_do(runs, peak, then):
    """A run that ended at a rate above the peak of the new part, as one does that was cut off, has no rate to rise to."""
    run = runs.copy(runs.trained("cosine", iters=8, **COSINE))
    session = session_of(run)
    extension = plan_extension(session, run, Wanted(steps=Amount(12, more=True), peak=peak))
    shown = dict(extension_lines(session, run, extension))
    assert shown["result"].endswith(then) and (" up to " in shown["learning rate"]) == (then == "rises again")


def test_what_is_left_of_a_cosine_is_stretched(runs):
    run = runs.copy(runs.trained("cosine-stopped", 6, iters=10, **COSINE))
    extension = extend(run, kill=2, steps=Amount(5, more=True))
    made = rates(run.path)
    assert (extension.how, extension.request.at, len(made)) == ("stretch", 5, 15)
    assert made[:6] == rates(runs.trained("cosine-stopped", 6, iters=10, **COSINE))[:6]
    assert made[5:] == sorted(made[5:], reverse=True) and made[-1] < 0.1 * made[5]
    with pytest.raises(UsageError, match="nothing of its shape is left to stretch"):
        finished = RunDirectory.open(run.path)
        plan_extension(session_of(finished), finished, Wanted(steps=Amount(5, more=True), stretch=True))


def test_a_time_becomes_updates_at_the_speed_of_the_run(runs):
    run = runs.copy(runs.trained("constant", iters=8, **CONSTANT))
    extension = plan_extension(session_of(run), run, Wanted(seconds=3600.0))
    assert extension.left == int(3600 / extension.seconds_per_update)
    assert not extension.exact
    assert extension.request.max_time == 3600  # from then on, whatever the run took before
    wsd = runs.copy(runs.trained("wsd-None", iters=12, **WSD))
    with pytest.raises(UsageError, match="must repeat .* before it gets longer"):
        plan_extension(session_of(wsd), wsd, Wanted(seconds=1e-3))


def test_a_run_that_was_cut_off_by_its_time_goes_on_without_that_limit(runs):
    run = runs.copy(runs.trained("cut-off", iters=60, max_time=1e-3, **CONSTANT))
    info = RunDirectory.open(run.path).info
    made = info.update
    assert made < 60 and info.updates == made  # not the 60 of the plan
    extend(run, steps=Amount(3, more=True))
    assert RunDirectory.open(run.path).info.update == made + 3


@pytest.mark.parametrize("kill", [None, 3])
def test_a_cooldown_of_a_killed_run_is_that_of_a_planned_wsd(runs, kill):
    """From update 5, the last checkpoint; the decay and its records are those of wsd(decay=7) over 12 updates."""
    run = runs.copy(runs.trained("killed", 6, iters=40, **CONSTANT))
    session = session_of(run)
    extension = plan_cooldown(session, run, 7, "1-sqrt", None)
    assert not extension.replaces
    go_on(session, run, extension, kill)
    assert_same(run.path, runs.trained("decay-7", iters=12, **{**SMALL, "schedule": "wsd(decay=7)"}))


def test_a_finished_run_can_be_cooled_down_and_extended_from_before_that(runs):
    run = runs.copy(runs.trained("constant", iters=8, **CONSTANT))
    session = session_of(run)
    extension = go_on(session, run, plan_cooldown(session, run, None, "linear", 1e-5))
    made = rates(run.path)
    assert (extension.request.at, len(made)) == (8, 18)
    assert made[8] == 1e-3 and made[17] == pytest.approx(1e-5 + (1e-3 - 1e-5) / 10)
    again = RunDirectory.open(run.path)
    with pytest.raises(UsageError, match="nothing to cool down"):
        plan_cooldown(session_of(again), again, 5, "linear", 1e-3)
    extension = plan_extension(session_of(again), again, Wanted(steps=Amount(20, more=False)))
    assert (extension.how, extension.request.at) == ("on", 8)
    assert [extension.rate(update) for update in (7, 8, 19)] == [1e-3] * 3


def test_a_plan_is_refused_once_the_run_has_gone_on(runs):
    run = runs.copy(runs.trained("killed", 6, iters=40, **CONSTANT))
    session = session_of(run)
    planned_before = plan_cooldown(session, run, 7, "1-sqrt", None)
    some_updates(session_of(run), run, 6, resume=True)
    with pytest.raises(UsageError, match="has gone on since update 5.*Give the command again"):
        record(run, planned_before)
    assert not RunDirectory.open(run.path).info.requests


def test_a_run_that_is_as_long_already_is_refused(runs):
    run = runs.copy(runs.trained("constant", iters=8, **CONSTANT))
    with pytest.raises(UsageError, match="already has 8 updates; got 8"):
        plan_extension(session_of(run), run, Wanted(steps=Amount(8, more=False)))


def test_a_run_without_an_update_is_only_planned_to_be_longer(runs):
    run = runs.copy(runs.trained("empty", 1, iters=8, **CONSTANT))
    extension = plan_extension(session_of(run), run, Wanted(steps=Amount(8, more=True)))
    assert (extension.exact, extension.left, extension.replaces) == (True, 16, False)
    with pytest.raises(UsageError, match="no checkpoint with an update"):
        plan_cooldown(session_of(run), run, 5, "linear", None)
    shutil.rmtree(run.path / "checkpoints")
    with pytest.raises(UsageError, match="nothing to continue from"):
        plan_extension(session_of(run), run, Wanted(steps=Amount(8, more=True)))
