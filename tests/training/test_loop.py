"""Whole short trainings: what is recorded, what is on disk, what stops them, and exact resume."""

from __future__ import annotations

import json
import math
import signal

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.errors import DivergedError, ModelError, Stopped
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Evaluated, LengthChanged, Tick, UpdateMade
from mlxsched.schedules import from_dict
from mlxsched.training.loop import Loop
from mlxsched.training.pace import Horizon, Pace, Revision
from mlxsched.training.policies.base import Policy, RollBack
from mlxsched.training.progress import Progress
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare

TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")


def records(run, kind=None):
    found = [r for r in run.read_metrics() if kind in (None, r["kind"])]
    return [{k: v for k, v in r.items() if k not in TIMES} for r in found]


def test_what_was_planned_is_what_ran(train):
    run, progress, events = train(schedule="linear", warmup=2, learning_rate=1e-3)
    made = [e for e in events if isinstance(e, UpdateMade)]
    assert [e.update for e in made] == list(range(12))
    schedule = run.info.plan["schedule"]
    assert [e.lr for e in made] == [from_dict(schedule)(u) for u in range(12)]
    assert [e.update for e in events if isinstance(e, Evaluated)] == [0, 5, 10, 12]
    assert run.info.status == "finished"
    assert run.info.best["loss"] == min(e.loss for e in events if isinstance(e, Evaluated))
    assert progress.tokens == sum(e.tokens for e in made)


def test_every_row_is_trained_on_once_an_epoch(session, parts_of, tmp_path, excel_rows):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:10]) + "\n")
    made = session(data=str(folder), iters=None, epochs=2, batch_size=4)
    _, _, loader = parts_of(made)
    assert made.plan.updates == 6
    for epoch in range(2):
        seen = [int(i) for u in range(3) for i in loader(3 * epoch + u).rows]
        assert sorted(seen) == list(range(10))


def test_a_length_window_trains_on_every_row_in_updates_of_like_rows(session):
    spread = []
    for window in (1, 8):
        made = session(length_window=window, iters=1000)
        updates = [made.sampler.rows(update) for update in range(1000)]
        assert sorted(np.concatenate(updates)) == list(range(4000))
        spread.append(np.mean([np.ptp(made.train_rows.lengths[rows]) for rows in updates]))
    assert spread[1] < spread[0] / 3


def test_the_loss_falls(train):
    run, _, _ = train(iters=30, learning_rate=3e-3)
    losses = [r["loss"] for r in records(run, "eval")]
    assert losses[-1] < losses[0] - 0.2


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"lora_plus_ratio": 4.0, "lora_parameters.dropout": 0.2},
        {"optimizer": "muon", "length_window": 4},
    ],
)
def test_resume_is_bit_identical(train, interrupted, resume, extra):
    whole, _, _ = train("whole", **extra)
    made, path = interrupted(
        "parts", 7, **extra
    )  # two updates beyond the checkpoint at 5: they must be forgotten
    parts, _ = resume(made, path)
    assert records(parts) == records(whole)
    for name in ("adapters/adapters.safetensors", "checkpoints/000012/optimizer.safetensors"):
        assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_a_revised_horizon_is_replayed_by_a_resume(session, resume, tmp_path):
    """A policy lengthens the run and changes its schedule: the interrupted run ends as the whole one does."""
    schedule = {"name": "linear", "init": 1e-3, "end": 0.0, "steps": 20}
    revision = Revision(at=6, updates=16, schedule=schedule, reason="test")

    def new_run(name):
        made = session(learning_rate=1e-3)
        return made, create_run(made, tmp_path / name)

    made, whole = new_run("whole")
    with whole.lock():
        loop, _ = start(made, whole, sinks_of(whole))
        for _ in range(6):
            loop.step()
        loop.pace.revise(revision)
        loop.run()
    made, parts = new_run("parts")
    with parts.lock():
        loop, _ = start(made, parts, sinks_of(parts))
        for _ in range(6):
            loop.step()
        loop.pace.revise(revision)
        for _ in range(5):  # one beyond the checkpoint at 10
            loop.step()
    resumed, progress = resume(made, parts.path)
    assert progress.update == 16
    rates = [record["lr"] for record in records(resumed, "train")]
    assert rates[6:] == [from_dict(schedule)(update) for update in range(6, 16)]
    assert records(resumed) == records(whole)


def test_a_signal_stops_after_a_checkpoint_and_the_run_goes_on_exactly(train, session, tmp_path):
    whole, _, _ = train("whole")
    made = session()
    run = create_run(made, tmp_path / "stopped")

    def interrupt(event):
        if isinstance(event, UpdateMade) and event.update == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Stopped, match="mlxsched resume") as stopped:
        execute(made, run, interrupt)
    assert stopped.value.exit_code == 130
    assert RunDirectory.open(run.path).info.status == "stopped"
    assert run.checkpoints.updates()[-1] == 7
    execute(prepare(made.config, made.origins), RunDirectory.open(run.path), lambda event: None, resume=True)
    finished = RunDirectory.open(run.path)
    assert finished.info.status == "finished"
    assert records(finished) == records(whole)


def test_a_poisoned_rate_never_reaches_the_disk(train, session, tmp_path):
    made = session(max_bad_updates=3)
    poisoned = [math.nan if u >= 6 else 1e-4 for u in range(12)]
    object.__setattr__(made, "schedule", poisoned.__getitem__)
    run = create_run(made, tmp_path / "poisoned")
    # The rate poisons the parameters, not the gradient: the guard must look at what would be stored.
    with pytest.raises(DivergedError, match="--learning-rate"):
        execute(made, run, lambda event: None)
    reopened = RunDirectory.open(run.path)
    assert reopened.info.status == "failed"
    for file in run.path.rglob("*.safetensors"):
        assert all(mx.isfinite(v).all().item() for v in mx.load(str(file)).values()), file
    assert [r["code"] for r in records(reopened, "event")] == ["non_finite"] * 3


def test_divergence_halves_the_rate_once_and_goes_on(session, tmp_path):
    made = session(max_bad_updates=2, on_divergence="halve", iters=20)
    calls = []

    def rate(update):
        calls.append(update)
        return math.inf if update in (7, 8) and calls.count(update) == 1 else 1e-4

    object.__setattr__(made, "schedule", rate)
    run = create_run(made, tmp_path / "halved")
    calls.clear()
    progress = execute(made, run, lambda event: None)
    assert progress.peak_factor == 0.5
    lrs = {r["update"]: r["lr"] for r in records(run, "train")}
    assert lrs[4] == 1e-4
    assert lrs[5] == lrs[19] == 5e-5
    # What came after the checkpoint, the bad updates too, was forgotten with the rollback.
    assert [r["code"] for r in records(run, "event")] == ["rollback"]


def test_patience_ends_the_run_and_keeps_the_best(train):
    run, progress, _ = train(
        iters=40, learning_rate=1e-12, schedule="constant", warmup=0, patience=2, steps_per_eval=2
    )
    assert progress.ended is not None and "2 evaluations" in progress.ended
    assert progress.update == 2 * len(records(run, "eval")) - 2
    assert (run.path / "adapters_final" / "adapters.safetensors").is_file()


def test_max_time_ends_the_run_with_its_schedule_completed_and_an_evaluation(train):
    run, progress, events = train(iters=4000, max_time=0.5, learning_rate=1e-3)
    assert progress.update < 4000 and from_dict(progress.revisions[-1]["schedule"])(progress.update) == 0
    assert progress.ended is None and run.info.status == "finished"
    assert records(run, "eval")[-1]["update"] == progress.update
    assert [r["code"] for r in records(run, "event")].count("time_budget") == len(progress.revisions) > 0
    assert LengthChanged(progress.revisions[-1]["at"], progress.update) in events


def test_without_validation_rows_the_last_adapter_is_the_one_to_use(train, tmp_path, excel_rows):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(excel_rows[:16]) + "\n")
    run, progress, _ = train(data=str(folder), iters=4)
    assert progress.best is None
    tensors = mx.load(str(run.adapters / "adapters.safetensors"))
    last = mx.load(str(run.checkpoints.path(4) / "adapters.safetensors"))
    assert all(mx.array_equal(tensors[name], value).item() for name, value in last.items())


def test_adapter_config_is_mlx_lms(train):
    run, _, _ = train()
    config = json.loads((run.adapters / "adapter_config.json").read_text())
    assert config["fine_tune_type"] == "lora"
    assert config["num_layers"] > 0
    assert config["lora_parameters"]["rank"] == 8


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_micro_batches_and_accumulation_do_not_change_the_run(train, smoothing):
    settings = {"label_smoothing": smoothing, "iters": 6, "val_batches": 0}
    one, _, _ = train("one", micro_batch_tokens=4096, **settings)
    many, _, _ = train("many", micro_batch_tokens=64, **settings)
    settings |= {"iters": 12, "batch_size": 2, "grad_accumulation_steps": 2}
    accumulated, _, _ = train("accumulated", **settings)
    for other in (many, accumulated):
        for a, b in zip(records(one, "train"), records(other, "train"), strict=True):
            assert a["loss"] == pytest.approx(b["loss"], rel=2e-5)
            assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-4)


def test_full_fine_tuning_changes_the_layers(train):
    run, _, _ = train(fine_tune_type="full", num_layers=2, learning_rate=1e-3)
    names = mx.load(str(run.adapters / "adapters.safetensors")).keys()
    assert names and not any("lora" in name for name in names)
    evaluations = [r["loss"] for r in records(run, "eval")]
    assert evaluations[-1] < evaluations[0]


def test_every_sink_hears_of_the_start_the_checkpoints_and_the_end(session, tmp_path):
    made, kinds = session(), []
    run = create_run(made, tmp_path / "run")

    def broken(event):
        raise RuntimeError("the server is down")

    execute(made, run, lambda event: kinds.append(type(event).__name__), broken)
    assert kinds[0] in {"RunStarted", "Notice"} and kinds[-1] == "RunFinished"
    assert kinds.count("RunStarted") == kinds.count("Measured") == kinds.count("RunFinished") == 1
    assert kinds.count("CheckpointSaved") >= 4 and kinds.count("UpdateMade") == 12
    failures = [r for r in run.read_metrics() if r.get("code") == "sink_failed"]
    assert len(failures) == 1 and "the server is down" in failures[0]["message"]


def test_a_stop_while_the_test_rows_are_measured_repeats_no_evaluation(session, resume, tmp_path):
    made = session(iters=2, test=True, test_batches=1)
    run = create_run(made, tmp_path / "run")
    came = [0]

    def stop(event):
        if isinstance(event, Tick) and event.what == "test loss before training":
            came[0] = signal.SIGTERM

    with run.lock():
        _, measurement = start(made, run, sinks_of(run, stop), stop_signal=lambda: came[0])
        with pytest.raises(Stopped):
            measurement.before()
    resumed, progress = resume(made, run.path)
    assert [r["update"] for r in records(resumed, "eval")] == [0, 2]
    assert {"loss", "test_loss"} <= progress.results["before"].keys()


def test_a_checkpoint_that_does_not_fit_costs_no_records(session, interrupted):
    _, path = interrupted("run", 7)
    before = records(RunDirectory.open(path))
    assert max(record["update"] for record in before) == 6  # beyond the checkpoint at 5
    other = session(**{"lora_parameters.rank": 4})
    with pytest.raises(ModelError, match="does not fit"):
        execute(other, RunDirectory.open(path), resume=True)
    assert records(RunDirectory.open(path)) == before


def test_a_rollback_remembers_the_best_adapter_that_is_on_the_disk(monkeypatch):
    events = []
    loop = Loop(None, None, Pace(Horizon(100, lambda update: 1e-3)), events.append)
    loop.progress = Progress(update=80, best_update=70, best_loss=1.5)

    def restore(note, up_to):
        loop.progress = Progress(update=up_to, best_update=50, best_loss=2.0, bad_in_a_row=3)
        return True

    monkeypatch.setattr(loop, "restore", restore)
    loop.policies = [Answers(RollBack(0.5, 60, "too fast", DivergedError("diverged")))]
    loop.ticker("validation")(1, 2)
    assert (loop.progress.update, loop.progress.best_update, loop.progress.best_loss) == (60, 70, 1.5)
    assert not loop.progress.see_evaluation(1.8)
    assert loop.pace.rate(60) == 5e-4 and events[-1].code == "rollback"


class Answers(Policy):
    def __init__(self, *actions):
        self.actions = actions

    def during_work(self, progress):
        return self.actions
