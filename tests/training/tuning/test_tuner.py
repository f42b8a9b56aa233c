"""What a run chooses, records, and takes from its record again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mlxsched.config import load_config
from mlxsched.model.fast.selection import choose_path
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.platform.caches import HEADER
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.run import create_run, execute, sinks_of, start
from mlxsched.training.session import prepare
from mlxsched.training.shape_times import Stopwatch
from mlxsched.training.tuning import measurement
from mlxsched.training.tuning.contest import Contest
from mlxsched.training.tuning.measurement import Measurement
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
    assert tuner.record()["note"] == "not timed: this model does not support it"


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
