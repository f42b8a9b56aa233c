"""Finding runs, naming new ones, and finding the files that a run reads again."""

from __future__ import annotations

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlxsched.errors import UsageError
from mlxsched.runs.atomic import TakenError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.store import (
    at_free_name,
    comparison_directory,
    local_paths,
    next_run_name,
    refuse_taken,
    run_path,
    runs_below,
    stored_config,
)

GIVEN = {"origins": {}, "plan": {}, "versions": {}}


def test_names_count_up_and_are_fit_for_a_file_system(tmp_path):
    assert next_run_name(tmp_path / "none", "laptop").name == "laptop-001"
    for name in ("laptop-001", "laptop-009", "laptop-x", "other-050", "my-laptop-070"):
        (tmp_path / name).mkdir()
    assert next_run_name(tmp_path, "laptop") == tmp_path / "laptop-010"
    (tmp_path / "laptop-1234").mkdir()
    assert next_run_name(tmp_path, "laptop").name == "laptop-1235"
    assert next_run_name(tmp_path, "../../etc/Passwd é").name == "etc-passwd-001"
    assert next_run_name(tmp_path, "***").name == "run-001"
    assert len(next_run_name(tmp_path, "x" * 500).name) < 100


def test_runs_that_chose_the_same_name_get_one_each(tmp_path):
    """Each chooses the first number, since planning takes a while before the directories are created."""
    chosen = next_run_name(tmp_path, "lora")
    meet = threading.Barrier(6)

    def create(path):
        if path == chosen:
            meet.wait()
        return RunDirectory.create(path, config={}, **GIVEN)

    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(at_free_name, chosen, named=False, create=create) for _ in range(6)]
        names = sorted(job.result().path.name for job in jobs)
    assert names == [f"lora-{number:03d}" for number in range(1, 7)]
    with pytest.raises(UsageError, match="There is a run in .*lora-001 already"):
        at_free_name(chosen, named=True, create=lambda path: RunDirectory.create(path, config={}, **GIVEN))


def test_a_comparison_keeps_the_name_that_it_is_given(tmp_path):
    def create(path):
        comparison_directory(path, "comparison.json", {"kind": "grid"})
        return path

    (tmp_path / "compare-001").mkdir()
    (tmp_path / "compare-001" / "other").touch()
    assert at_free_name(tmp_path / "compare-001", named=False, create=create).name == "compare-002"
    with pytest.raises(UsageError, match="compare-002 exists. Continue it with --resume"):
        at_free_name(tmp_path / "compare-002", named=True, create=create)


def test_a_hostile_number_in_a_name_does_not_matter(tmp_path):
    (tmp_path / ("laptop-" + "9" * 200)).mkdir()
    assert next_run_name(tmp_path, "laptop").name == "laptop-1000000000000"


def test_a_number_that_is_taken_is_never_tried_twice(tmp_path):
    """On a file system that ignores case, Lora-001 takes lora-001, which is not among the names."""
    tried = []

    def create(path):
        tried.append(path.name)
        assert len(tried) < 9, tried
        if len(tried) < 3:
            raise TakenError("taken")
        return path

    (tmp_path / "Lora-001").mkdir()
    assert at_free_name(tmp_path / "lora-001", named=False, create=create).name == "lora-003"
    tried.clear()
    (tmp_path / ("lora-" + "9" * 200)).mkdir()  # its number is read as one with 12 digits
    assert (
        at_free_name(tmp_path / "lora-1000000000000", named=False, create=create).name == "lora-1000000000002"
    )
    tried.clear()
    with pytest.raises(TakenError):
        at_free_name(tmp_path / "unnumbered", named=False, create=create)


def test_where_a_new_run_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_path("here/a", "b", "lora").parts == ("here", "a")
    assert run_path(None, "b", "lora").parts == ("runs", "b")
    assert run_path(None, None, "lora").parts == ("runs", "lora-001")
    assert run_path(None, None, None).parts == ("runs", "run-001")


@pytest.mark.parametrize("given", [("x" * 300, None), (None, "é" * 150), ("a\0b", None)])
def test_a_name_that_no_file_system_takes_is_refused(given):
    with pytest.raises(UsageError, match="Choose a shorter one"):
        run_path(*given, None)


def test_a_taken_place_names_the_way_on(tmp_path):
    refuse_taken(tmp_path / "nothing")
    run = RunDirectory.create(tmp_path / "j1", config={}, **GIVEN)
    with pytest.raises(UsageError, match="Continue it: mlxsched resume .*j1"):
        refuse_taken(run.path)
    run.update_info(status="finished")
    with pytest.raises(
        UsageError, match="finished run in .*mlxsched eval .*--resume-adapter-file .*--name"
    ) as told:
        refuse_taken(run.path)
    assert "mlxsched resume" not in str(told.value)


def test_all_runs_below_a_root_the_damaged_ones_too(tmp_path):
    for name in ("b", "deep/a"):
        RunDirectory.create(tmp_path / name, config={"peak": 1}, **GIVEN)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text("{")
    (tmp_path / "b" / "inside").mkdir()
    (tmp_path / "b" / "inside" / "run.json").write_text("{}")
    (tmp_path / "loop").symlink_to(tmp_path)
    found = {run.path.relative_to(tmp_path).as_posix(): run for run in runs_below(tmp_path)}
    assert sorted(found) == ["b", "bad", "deep/a"]
    assert found["deep/a"].info.config == {"peak": 1} and found["deep/a"].problem == ""
    assert found["bad"].info is None and "run.json:1:2" in found["bad"].problem
    assert runs_below(tmp_path / "nowhere") == []


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project folder with data, a model, and a run that was started in it with relative paths."""
    home = tmp_path / "project"
    (home / "models" / "own").mkdir(parents=True)
    (home / "chats.jsonl").write_text("{}")
    monkeypatch.chdir(home)
    config = {"data": "chats.jsonl", "model": "models/own", "resume_adapter_file": None, "seed": 3}
    run = RunDirectory.create(
        home / "runs" / "a", config=config, paths=local_paths(config, home / "runs" / "a"), **GIVEN
    )
    return home, run


def test_paths_hold_from_any_folder_and_are_kept_where_they_still_lead_there(project, tmp_path, monkeypatch):
    home, run = project
    assert stored_config(run) == run.info.config
    monkeypatch.chdir(tmp_path)
    found = stored_config(RunDirectory.open(run.path))
    assert found["data"] == str(home / "chats.jsonl") and found["model"] == str(home / "models" / "own")
    assert found["seed"] == 3
    (tmp_path / "chats.jsonl").write_text("another file of that name")
    assert stored_config(run)["data"] == str(home / "chats.jsonl")


def test_a_project_that_was_moved_is_found_again(project, tmp_path, monkeypatch):
    home, _ = project
    monkeypatch.chdir(tmp_path)
    shutil.move(home, tmp_path / "moved")
    run = RunDirectory.open(tmp_path / "moved" / "runs" / "a")
    assert stored_config(run)["data"] == str(tmp_path / "moved" / "chats.jsonl")


def test_what_is_gone_is_named_with_the_flag_that_replaces_it(project, tmp_path, monkeypatch):
    home, run = project
    monkeypatch.chdir(tmp_path)
    (home / "chats.jsonl").unlink()
    with pytest.raises(UsageError, match=r"the data of .* was in .*project/chats\.jsonl.*--data"):
        stored_config(run)
    assert stored_config(run, need=("model",))["model"] == str(home / "models" / "own")
    given = stored_config(run, data="other.jsonl")
    assert given["data"] == "other.jsonl" and given["hf_dataset"] is None


def test_bundled_and_repository_names_are_no_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    (tmp_path / "excel").mkdir()
    assert local_paths({"data": "excel", "model": "tiny", "resume_adapter_file": None}, tmp_path / "r") == {}
    assert local_paths({"data": "org/name", "model": "Qwen/Qwen3-0.6B"}, tmp_path / "r") == {}


def test_runs_of_earlier_versions_have_no_paths(project):
    _, run = project
    record = json.loads((run.path / "run.json").read_text())
    del record["paths"]
    (run.path / "run.json").write_text(json.dumps(record))
    assert stored_config(RunDirectory.open(run.path)) == run.info.config
