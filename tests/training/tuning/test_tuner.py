"""What a run chooses, records, and takes from its record again."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from mlxsched.config import load_config
from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.plan import BatchingStats
from mlxsched.errors import RunError
from mlxsched.model.fast.selection import choose_path
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.platform.caches import HEADER
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare
from mlxsched.training.shape_times import Stopwatch
from mlxsched.training.tuning import measurement
from mlxsched.training.tuning.contest import Contest
from mlxsched.training.tuning.measurement import Measurement, some_updates
from mlxsched.training.tuning.result import PATHS, Case, Tuning
from mlxsched.training.tuning.store import TuningStore
from mlxsched.training.tuning.tuner import Tuner


@pytest.fixture(scope="module")
def checked():
    """A session, its self-check, and the path that is taken without timing anything."""
    loaded = load_config(flags={"iters": 12, "batch_size": 4})
    made = prepare(loaded.config, loaded.origins)
    check = SelfCheck(made.loaded.model, made.train_rows)
    return made, check, choose_path(check, lambda note: None)


def test_every_candidate_agrees_with_the_plain_path(checked):
    _, check, path = checked
    for kind, paths in PATHS.items():
        found = paths(path)
        assert next(iter(found.values()), path) == path, kind
        for name, candidate in list(found.items())[1:]:
            assert candidate != path
            assert check.disagreement(candidate) is None, (kind, name)


def test_a_short_run_times_nothing(checked, monkeypatch):
    made, check, path = checked
    monkeypatch.setattr("mlxsched.training.tuning.tuner.Measurement", None)
    tuner = Tuner(made)
    assert tuner.path(check, path, lambda note: None) == path
    assert tuner.record()["note"] == "not timed: the run is too short"


def test_the_choice_is_among_the_candidates_and_the_time_is_kept(checked):
    made, check, path = checked
    tuner = Tuner(made, most=0.5, share=0.0)
    chosen = tuner.path(check, path, lambda note: None)
    record = tuner.record()
    assert check.disagreement(chosen) is None
    assert record["seconds"] < 30  # a first call that compiles cannot be cut short
    for kind, name in record["chosen"].items():
        cases = [case for case in record["cases"] if case["kind"] == kind]
        assert [case["name"] for case in cases if case["chosen"]] == [name]
    assert chosen == Tuning.from_dict(json.loads(json.dumps(record))).applied_to(path)


def test_a_winner_that_disagrees_or_does_not_fit_is_refused(checked, monkeypatch):
    made, check, path = checked
    fastest_last = {
        "in chunks": [9.0] * 3,
        "whole": [2.0] * 3,
        "mx.fast in chunks": [3.0] * 3,
        "mx.fast": [1.0] * 3,
    }
    monkeypatch.setattr(measurement, "contest", lambda functions, *_: Contest(fastest_last))
    monkeypatch.setattr(
        check,
        "disagreement",
        lambda path: "its loss differs" if path.chunk is None and path.options.fused else None,
    )

    def chosen(session):
        found = Measurement(session, check, Stopwatch(lambda: 0.0, 2.0), 0.0)
        part = measurement.LossPart(made.loaded.model, 0.4)
        found._choose("cross-entropy", path, part, [(4, 64)], lambda shape: shape[0] * shape[1])
        return {case.name: case for case in found.result.cases}

    cases = chosen(made)
    assert cases["mx.fast"].refused == "its loss differs"
    assert cases["whole"].chosen and cases["whole"].gain == 4.5
    cases = chosen(replace(made, memory=replace(made.memory, limit=made.memory.peak - 10**9)))
    assert cases["in chunks"].chosen
    assert "do not fit into memory" in cases["whole"].refused


def test_what_would_not_fit_is_not_even_timed(checked, monkeypatch):
    made, check, path = checked
    asked = []
    monkeypatch.setattr(
        measurement, "contest", lambda functions, *_: asked.extend(functions) or Contest({"in chunks": []})
    )
    small = replace(made, memory=replace(made.memory, limit=made.memory.weights))
    found = Measurement(small, check, Stopwatch(lambda: 0.0, 2.0), 0.0)
    found._choose(
        "cross-entropy", path, measurement.LossPart(made.loaded.model, 0.4), [(4, 64)], lambda shape: 1.0
    )
    assert asked == ["in chunks", "mx.fast in chunks"]


def test_a_model_that_cannot_be_timed_is_trained_all_the_same(checked, monkeypatch):
    made, check, path = checked

    def fails(*arguments):
        raise RuntimeError("no such layer")

    monkeypatch.setattr(Measurement, "path", fails)
    tuner = Tuner(made, share=0.0)
    assert tuner.path(check, path, lambda note: None) == path
    assert tuner.record()["note"] == "not timed: a candidate failed (no such layer)"


def test_a_gpu_timeout_ends_the_run_with_advice(checked, monkeypatch):
    made, check, path = checked

    def times_out(*arguments):
        raise RuntimeError("[METAL] Command buffer execution failed: Caused GPU Timeout Error")

    monkeypatch.setattr(Measurement, "path", times_out)
    with pytest.raises(RunError, match="Train with --no-tune"):
        Tuner(made, share=0.0).path(check, path, lambda note: None)


def test_a_failure_among_threads_leaves_the_planned_ones(checked, monkeypatch):
    made, check, _ = checked
    counts = []

    def piece():
        if counts[-1] != 1:
            raise RuntimeError("no memory for a second thread")

    monkeypatch.setattr(measurement, "thread_setter", lambda: counts.append)
    monkeypatch.setattr(measurement, "cores", lambda: 2)
    found = Measurement(made, check, Stopwatch(lambda: 0.0, 2.0), 0.0)
    with pytest.raises(RuntimeError):
        found._choose_threads(piece)
    assert counts[-2:] == [2, 1]


def test_kinds_without_time_are_recorded_and_make_the_answer_incomplete(checked, monkeypatch):
    made, check, path = checked
    monkeypatch.setattr(measurement, "thread_setter", lambda: lambda count: None)
    monkeypatch.setattr(measurement, "cores", lambda: 2)
    watch = Stopwatch(lambda: 0.0, 2.0)
    found = Measurement(made, check, watch, 0.0)
    found.result.cases.append(Case("attention", "in blocks", 1.0, 1.0, True))
    assert found.result.is_complete
    watch.spent = 2.0
    part = measurement.StepPart(made.loaded.model, found._batch)
    assert found._choose("step", path, part, [(4, 64)], lambda shape: 1.0) == path
    found._choose_threads(lambda: None)
    found.batching(path, path)
    assert {case.kind for case in found.result.cases if case.gain is None} == {"step", "threads", "batching"}
    assert found.result.chosen == {"step": "compiled", "threads": "1", "batching": "packed"}
    assert not found.result.is_complete


def test_batching_that_fails_is_not_kept_as_complete(checked, monkeypatch):
    made, check, path = checked
    tuner = Tuner(made, share=0.0)
    tuner._measurement = Measurement(made, check, Stopwatch(lambda: 0.0, 2.0), 0.0)
    tuner.result = tuner._measurement.result
    monkeypatch.setattr(Measurement, "batching", lambda *_: 1 / 0)
    packed = replace(path, packing=Packing(512, 4))
    assert tuner.batching(path, packed) == packed
    assert [case.gain for case in tuner.result.cases] == [None, None]


def test_packing_is_judged_by_several_updates(checked, monkeypatch):
    made, check, path = checked
    found = Measurement(made, check, Stopwatch(lambda: 0.0, 1e9), 0.0)
    stats = BatchingStats(10, 900, [(4, 64)] * 10)
    assert list(some_updates(stats, 1e9)) == [0, 2, 4, 6]
    assert list(some_updates(stats, 600.0)) == [0, 5]
    assert list(some_updates(stats, 1.0)) == [0]
    loaded = []
    monkeypatch.setattr(
        measurement,
        "BatchLoader",
        lambda *_: lambda update: loaded.append(update) or SimpleNamespace(arrays=[]),
    )
    monkeypatch.setattr(
        measurement, "contest", lambda functions, *_: Contest(dict.fromkeys(functions, [1.0] * 3))
    )
    found.batching(path, path)
    assert loaded == [*some_updates(found._stats, 1e9)] * 2 and len(loaded) == 2 * measurement.UPDATES
    loaded.clear()
    found._watch.allowed = measurement.LEAST  # which is not enough for several
    found._second = 100.0
    found.batching(path, path)
    assert loaded == [0, 0]


def test_the_check_of_a_winner_is_on_the_watch(checked, monkeypatch):
    made, check, path = checked
    now = [0.0]

    def disagreement(path):
        now[0] += 0.7

    monkeypatch.setattr(check, "disagreement", disagreement)
    times = {"in chunks": [9.0] * 3, "whole": [1.0] * 3}
    monkeypatch.setattr(measurement, "contest", lambda functions, *_: Contest(times))
    watch = Stopwatch(lambda: now[0], 2.0)
    found = Measurement(made, check, watch, 0.0)
    part = measurement.LossPart(made.loaded.model, 0.4)
    found._choose("cross-entropy", path, part, [(4, 64)], lambda shape: 1.0)
    assert watch.spent >= 0.7


def test_the_record_decides_and_damage_is_tolerated(checked):
    made, check, path = checked
    whole = Tuner(made, {"chosen": {"cross-entropy": "whole", "attention": "sideways", "step": 3}})
    assert whole.path(check, path, lambda note: None).chunk is None
    assert Tuner(made, {"chosen": [1]}).path(check, path, lambda note: None) == path
    assert Tuning.from_dict({"chosen": {"threads": "-4"}}).threads is None


def test_a_recorded_choice_that_does_not_agree_any_more_is_not_used(checked, monkeypatch):
    made, check, path = checked
    notes = []
    monkeypatch.setattr(check, "disagreement", lambda path: "its loss differs by 1")
    tuner = Tuner(made, {"chosen": {"cross-entropy": "whole"}})
    assert tuner.path(check, path, notes.append) == path
    assert notes == ["the choice of an earlier start is not used: its loss differs by 1"]


def test_an_answer_in_the_cache_is_used(checked, tmp_path, monkeypatch):
    made, check, path = checked
    made = replace(made, cache=tmp_path)
    shapes = [(4, 64)]
    store = TuningStore.of(tmp_path, made, path, shapes)
    assert store.load() is None
    record = Tuning({"cross-entropy": "whole"}, [Case("cross-entropy", "whole", 1.0, 2.0, True)]).to_dict()
    store.save("tiny", record)
    assert store.load() == record
    assert TuningStore.of(tmp_path, made, path, [(4, 128)]).load() is None
    for other in (
        replace(made, memory=replace(made.memory, limit=made.memory.limit // 2)),
        replace(made, memory=replace(made.memory, cache=10**6)),
        replace(made, config=made.config.model_copy(update={"z_loss": 1e-4})),
        replace(made, config=made.config.model_copy(update={"label_smoothing": 0.1})),
    ):
        assert TuningStore.of(tmp_path, other, path, shapes).load() is None
    monkeypatch.setattr(TuningStore, "of", lambda *_: store)
    tuner = Tuner(made, share=0.0)
    assert tuner.path(check, path, lambda note: None).chunk is None
    (store.path / HEADER).write_text("{")
    assert store.load() is None
    store.save("tiny", record)
    assert store.load() == record


def test_what_there_was_no_time_for_is_not_kept(checked, tmp_path):
    made, check, path = checked
    tuner = Tuner(replace(made, cache=tmp_path), most=1e-9, share=0.0)
    tuner.path(check, path, lambda note: None)
    assert tuner.record()["note"] or not tuner.result.is_complete
    assert not (tmp_path / "tuning").exists()
    assert Tuning(cases=[Case("step", "compiled", 1.0, 1.0, True)]).is_complete
    assert not Tuning(cases=[Case("step", "compiled", 1.0, None, True)]).is_complete


def test_a_run_records_its_choice_and_a_resume_takes_it(session, tmp_path, monkeypatch):
    def decide(tuner, check, path):
        tuner.result = Tuning({"cross-entropy": "whole"})

    monkeypatch.setattr(Tuner, "_decide", decide)
    made = session(iters=2, save_every=1, val_batches=0)
    run = create_run(made, tmp_path / "run")
    with run.lock():
        start(made, run, sinks_of(run))[0].step()
    assert RunDirectory.open(run.path).info.tuning["chosen"] == {"cross-entropy": "whole"}
    monkeypatch.setattr(Tuner, "_decide", None)
    execute(session(iters=2, save_every=1, val_batches=0), run, resume=True)
    assert run.info.short_cuts["training"]["chunk"] is None
    assert run.info.tuning["chosen"] == {"cross-entropy": "whole"}


def test_a_resume_takes_what_the_run_has_recorded_and_is_exact(session, tmp_path):
    adapters = []
    for name in ("whole", "resumed"):
        made = session(iters=4, save_every=2, val_batches=0)
        run = create_run(made, tmp_path / name)
        run.update_info(tuning={"chosen": {"cross-entropy": "whole"}})
        if name == "resumed":
            with run.lock():
                loop, _ = start(made, run, sinks_of(run), resume=True)
                for _ in range(3):
                    loop.step()
            made, run = session(iters=4, save_every=2, val_batches=0), RunDirectory.open(run.path)
        execute(made, run, resume=True)
        assert run.info.short_cuts["training"]["chunk"] is None
        adapters.append((run.adapters / "adapters.safetensors").read_bytes())
    assert adapters[0] == adapters[1]
