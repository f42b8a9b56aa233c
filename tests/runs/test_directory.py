from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlxsched.errors import MlxschedError, UsageError, UserError
from mlxsched.runs.atomic import StorageError
from mlxsched.runs.directory import RunDirectory, free_space_check, is_run

GIVEN = {
    "config": {"peak": 1e-3},
    "origins": {"peak": "flag"},
    "plan": {"updates": 9},
    "versions": {"mlx": "1"},
}


def fill_with(content: str):
    return lambda directory: (directory / "adapters.safetensors").write_text(content)


def train(update: int) -> dict[str, object]:
    return {"kind": "train", "update": update}


@pytest.fixture
def run(tmp_path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "laptop-001", **GIVEN)


def test_what_is_created_is_opened(run):
    again = RunDirectory.open(run.path)
    assert again.info == run.info and again.name == "laptop-001"
    assert again.info.config == {"peak": 1e-3} and again.info.origins == {"peak": "flag"}
    assert again.info.status == "running" and again.info.best is None
    assert again.info.created == again.info.updated and again.info.created.endswith("+00:00")
    assert again.read_metrics() == [] and again.checkpoints.latest_good() is None
    assert os.listdir(run.path) == ["run.json"]


def test_changes_are_written_and_the_rest_is_kept(run):
    run.update_info(status="finished", update=9, best={"update": 6, "loss": 1.5})
    again = RunDirectory.open(run.path).info
    assert (again.status, again.update, again.best) == ("finished", 9, {"update": 6, "loss": 1.5})
    assert again.config == GIVEN["config"] and again.created == run.info.created
    with pytest.raises(TypeError):
        run.update_info(colour="red")


def test_a_name_that_is_taken_is_refused(run, tmp_path):
    with pytest.raises(UsageError, match="mlxsched resume .*laptop-001"):
        RunDirectory.create(run.path, **GIVEN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(UsageError, match="exists and is not an empty directory"):
        RunDirectory.create(tmp_path / "mine", **GIVEN)
    with pytest.raises(UsageError, match="exists and is not an empty directory"):
        RunDirectory.create(tmp_path / "mine" / "thesis.txt", **GIVEN)
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]
    (tmp_path / "empty").mkdir()
    assert is_run(RunDirectory.create(tmp_path / "empty", **GIVEN).path)


def test_a_place_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="A file is where a directory should be"):
        RunDirectory.create(tmp_path / "file" / "runs" / "a", **GIVEN)


def test_a_kill_at_every_file_operation_makes_a_run_or_none(tmp_path, killed_at_event):
    path = tmp_path / "a"
    for number in count(1):
        killed = killed_at_event(lambda: RunDirectory.create(path, **GIVEN), number)
        if path.exists():
            assert RunDirectory.open(path).info.config == GIVEN["config"]
            break
        assert killed
    assert number > 3


def test_a_bare_name_is_that_of_a_run_in_the_default_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RunDirectory.create(Path("runs/laptop-005"), **GIVEN)
    with pytest.raises(
        UsageError, match=r"in laptop-005: no such directory\. Did you mean runs/laptop-005\?"
    ):
        RunDirectory.open(Path("laptop-005"))


def test_the_error_for_an_unknown_run_lists_similar_runs_or_the_latest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"`mlxsched runs \.` lists the runs there"):
        RunDirectory.open(Path("laptop"))
    for age, name in enumerate(("french", "laptop-001", "laptop-002", "b", "c", "d")):
        run = RunDirectory.create(Path("runs", name), **GIVEN)
        os.utime(run.path / "run.json", (1e9 - age, 1e9 - age))
    similar = r"Similar runs: runs/laptop-001, runs/laptop-002\. `mlxsched runs` lists all\."
    latest = r"The latest runs: runs/french, runs/laptop-001, runs/laptop-002\. "
    for place in (Path("lptop-01"), Path("runs/laptop-003")):
        with pytest.raises(UsageError, match=similar):
            RunDirectory.open(place)
    with pytest.raises(UsageError, match=latest):
        RunDirectory.open(Path("xyz"))


@pytest.mark.parametrize("name", ["nothing", "empty"])
def test_no_run_is_a_usage_error(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=f"no run in .*{name}"):
        RunDirectory.open(tmp_path / name)


@pytest.mark.parametrize("part", ["adapters", "checkpoints/000100"])
def test_a_part_of_a_run_leads_to_the_run(run, part):
    (run.path / part).mkdir(parents=True)
    with pytest.raises(UsageError, match=rf"part of the run .*{run.name}: give that"):
        RunDirectory.open(run.path / part)


def test_going_back_to_a_checkpoint_restores_what_was_there(run):
    with run.lock():
        for update in (1, 2, 3):
            run.metrics.write(train(update))
            run.metrics.write({"kind": "eval", "update": update, "loss": 1.0})
            if update == 2:
                run.write_checkpoint(2, fill_with("2"), info={"epoch": 0})
                at_two = (run.path / "metrics.jsonl").read_bytes()
                run.metrics.write({"kind": "event", "update": 2, "code": "late", "message": "after it"})
        run.write_checkpoint(3, fill_with("3"))
        os.truncate(run.checkpoints.path(3) / "adapters.safetensors", 0)
        checkpoint = run.checkpoints.latest_good()
        assert checkpoint.update == 2 and checkpoint.info["epoch"] == 0
        run.rewind(checkpoint)
        assert (run.path / "metrics.jsonl").read_bytes() == at_two
        assert run.checkpoints.updates() == [2]
        run.rewind(None)
        assert run.read_metrics() == [] and run.checkpoints.updates() == []


def test_a_kill_at_every_file_operation_of_going_back_leaves_metrics_for_each_checkpoint(
    tmp_path, killed_at_event
):
    for number in count(1):
        run = RunDirectory.create(tmp_path / str(number), **GIVEN)
        with run.lock():
            for update in (1, 2, 3):
                run.metrics.write(train(update))
                run.write_checkpoint(update, fill_with("x"))

        def go_back(run: RunDirectory = run) -> None:
            with run.lock():
                run.rewind(run.checkpoints.load(1))

        killed = killed_at_event(go_back, number)
        with run.lock():
            left = run.checkpoints.updates()
            assert [record["update"] for record in run.read_metrics()][: left[-1]] == list(
                range(1, left[-1] + 1)
            )
        if not killed:
            break
    assert left == [1] and len(run.read_metrics()) == 1


def test_metrics_reach_the_disk_before_the_checkpoint_that_counts_them(run):
    with run.lock():
        run.metrics.write(train(1))
        (run.path / "metrics.jsonl").unlink()
        with pytest.raises(StorageError):
            run.write_checkpoint(1, fill_with("1"))
        assert run.checkpoints.updates() == []


def test_the_lock_keeps_a_second_process_out_and_readers_in(run):
    code = (
        "import sys; from pathlib import Path; from mlxsched.runs.directory import RunDirectory\n"
        "from mlxsched.errors import UsageError\n"
        "run = RunDirectory.open(Path(sys.argv[1])); print(len(run.read_metrics()))\n"
        "try:\n    with run.lock(): print('locked')\nexcept UsageError as error: print(error)"
    )
    with run.lock():
        run.metrics.write(train(1))
        command = [sys.executable, "-c", code, str(run.path)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.startswith("1\n") and f"in use by process {os.getpid()}" in shown
    with run.lock():
        run.metrics.write(train(2))
    assert len(run.read_metrics()) == 2


def test_only_the_holder_of_the_lock_cleans_up_and_only_what_is_ours(run):
    (run.path / ".tmp-run.json-0123456789ab").write_text("half")
    (run.path / ".tmp-notes").write_text("a user's")
    (run.path / "checkpoints" / ".tmp-000100-0123456789ab").mkdir(parents=True)
    RunDirectory.open(run.path).read_metrics()
    assert (run.path / ".tmp-run.json-0123456789ab").exists()
    with run.lock():
        assert sorted(os.listdir(run.path)) == [".lock", ".tmp-notes", "checkpoints", "run.json"]
        assert os.listdir(run.path / "checkpoints") == []


def test_a_users_file_among_the_adapters_survives(run):
    run.write_adapter(fill_with("one"))
    (run.adapters / "notes.txt").write_text("mine")
    (run.adapters / "more").mkdir()
    run.write_adapter(fill_with("two"))
    assert (run.adapters / "notes.txt").read_text() == "mine"
    assert sorted(os.listdir(run.adapters)) == ["adapters.safetensors", "more", "notes.txt"]


@pytest.mark.parametrize("where", [".", "adapters"])
def test_a_folder_that_cannot_be_read_is_named(run, monkeypatch, where):
    """By a stand-in for the system, since root may read everything."""
    run.write_adapter(fill_with("one"))
    forbidden = (run.path / where).resolve()
    for name in ("listdir", "scandir"):
        monkeypatch.setattr(os, name, _refusing(getattr(os, name), forbidden))
    with pytest.raises(UserError, match="Cannot read .*Permission denied"):
        RunDirectory.open(run.path)


def _refusing(original, forbidden):
    def refuse(path, *rest):
        if Path(path).resolve() == forbidden:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *rest)

    return refuse


def test_adapters_are_replaced_as_a_whole(run):
    run.write_adapter(fill_with("one"))
    run.write_adapter(fill_with("two"))
    run.write_adapter(fill_with("last"), run.final_adapters)
    assert (run.adapters / "adapters.safetensors").read_text() == "two"
    assert (run.final_adapters / "adapters.safetensors").read_text() == "last"


OURS = ["run.json", "metrics.jsonl", "checkpoints", "adapters", "adapters_final", ".lock"]


@pytest.mark.parametrize("name", [*OURS, "adapters/adapters.safetensors", "snapshots/000100"])
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_that_leads_out_is_refused(run, tmp_path, name, dangling):
    path, outside = run.path / name, tmp_path / "outside"
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(outside)
    elif not dangling:
        outside.mkdir()
    path.symlink_to(outside)
    with pytest.raises(UserError, match=f"{path.name} is a symbolic link"):
        RunDirectory.open(run.path)


def test_a_link_to_the_run_itself_is_fine(run, tmp_path):
    (tmp_path / "latest").symlink_to(run.path)
    assert RunDirectory.open(tmp_path / "latest").name == "laptop-001"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "pwned"}, "'pwned' .* is not a state"),
        ({"status": 3}, "'status' must be a text; got int"),
        ({"update": -1}, "-1 updates is not a state"),
        ({"update": True}, "'update' must be a whole number; got bool"),
        ({"update": 1.5}, "'update' must be a whole number; got float"),
        ({"config": []}, "'config' must be an object; got list"),
        ({"best": "x"}, "'best' must be an object or null; got str"),
        ({"status": "\x1b[2J"}, r"'\\x1b\[2J'"),
        ({"paths": {"data": "/etc/passwd"}}, "'paths' must hold objects"),
        ({"paths": {"data": {"path": 1, "from_run": ".."}}}, "'paths' must hold objects"),
    ],
)
def test_a_wrong_value_is_named(run, change, message):
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"run.json.*{message}.*damaged or not from mlxsched"):
        RunDirectory.open(run.path)


def test_unknown_keys_are_ignored(run):
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": 1}))
    assert RunDirectory.open(run.path).info == run.info


@pytest.mark.parametrize("key", ["trust_remote_code", "adapter_path"])
def test_a_file_gives_no_permissions(run, key):
    path = run.path / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "config": {key: "yes", "peak": 1}}))
    assert RunDirectory.open(run.path).info.config == {"peak": 1}
    made = RunDirectory.create(run.path.parent / "b", **{**GIVEN, "config": {key: True, "peak": 1}})
    assert "yes" not in (made.path / "run.json").read_text() and made.info.config == {"peak": 1}


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(["status", "config", "plan", "best", "update", "message", "created", "data", "x"])


@given(st.dictionaries(keys, values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_run_json_opens_or_is_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("run")
    (path / "run.json").write_text(json.dumps(content))
    try:
        info = RunDirectory.open(path).info
    except UserError:
        return
    assert isinstance(info.config, dict) and isinstance(info.update, int)


def test_too_little_space_is_said_before_the_first_step(small_disk):
    free_space_check(small_disk / "runs" / "not-there-yet", 100_000)
    with pytest.raises(StorageError, match=r"needs about 5.0 MB .* 0.3 MB are free\. Free some space"):
        free_space_check(small_disk / "runs" / "not-there-yet", 5_000_000)


def test_a_full_disk_in_the_middle_of_a_run_leaves_a_run_that_goes_on(small_disk):
    run = RunDirectory.create(small_disk / "a", **GIVEN)
    with run.lock():
        run.metrics.write(train(1))
        run.write_checkpoint(1, fill_with("good"))
        filler = small_disk / "filler"
        with open(filler, "wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(MlxschedError):
            run.write_checkpoint(2, fill_with("x" * 50_000))
        with pytest.raises(MlxschedError):
            run.update_info(status="failed", message="x" * 50_000)
    again = RunDirectory.open(run.path)
    assert again.info.status == "running" and again.checkpoints.latest_good().update == 1
    filler.unlink()
    with again.lock():
        again.update_info(status="failed")
        again.write_checkpoint(2, fill_with("2"))
    assert Path(run.path / "checkpoints" / "000002").is_dir()
