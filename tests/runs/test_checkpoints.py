from __future__ import annotations

import json
import os
import shutil
from itertools import count, islice
from pathlib import Path

import pytest

from mlxsched.errors import RunError
from mlxsched.runs.atomic import TEMPORARY_PREFIX, StorageError
from mlxsched.runs.checkpoints import MANIFEST, Checkpoints


def fill_with(content: bytes):
    def fill(directory: Path) -> None:
        (directory / "adapters.safetensors").write_bytes(content)
        (directory / "state.json").write_text("{}")

    return fill


@pytest.fixture
def store(tmp_path) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints")


def test_written_and_found_with_what_was_noted(store):
    assert store.updates() == [] and store.latest_good() is None
    assert store.write(50, fill_with(b"1"), info={"loss": 2.5}) == store.directory / "000050"
    store.write(1_000_000, fill_with(b"2"))
    assert store.updates() == [50, 1_000_000]
    assert store.load(50).info == {"loss": 2.5}
    latest = store.latest_good()
    assert latest.update == 1_000_000 and latest.path == store.directory / "1000000"
    assert (latest.path / "adapters.safetensors").read_bytes() == b"2"


def damage_by_cutting(path: Path) -> None:
    os.truncate(path / "adapters.safetensors", 3)


def damage_by_flipping_a_bit(path: Path) -> None:
    content = bytearray((path / "adapters.safetensors").read_bytes())
    content[5] ^= 1
    (path / "adapters.safetensors").write_bytes(content)


def damage_by_removing_a_file(path: Path) -> None:
    (path / "state.json").unlink()


def damage_by_removing_the_manifest(path: Path) -> None:
    (path / MANIFEST).unlink()


def damage_by_tearing_the_manifest(path: Path) -> None:
    os.truncate(path / MANIFEST, 20)


def damage_by_emptying_the_manifest(path: Path) -> None:
    (path / MANIFEST).write_text('{"update": 20, "info": {}, "files": {}}')


def damage_by_taking_another_ones_manifest(path: Path) -> None:
    shutil.copy(path.parent / "000010" / MANIFEST, path / MANIFEST)


def damage_by_linking_out(path: Path) -> None:
    outside = path.parent.parent / "outside"
    (path / "adapters.safetensors").rename(outside)
    (path / "adapters.safetensors").symlink_to(outside)


def damage_by_naming_a_file_outside(path: Path) -> None:
    outside = path.parent / "secret"
    outside.write_text("x")
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"]["../secret"] = {"bytes": 1, "sha256": "0" * 64}
    (path / MANIFEST).write_text(json.dumps(manifest))


def damage_by_a_pipe_that_is_listed(path: Path) -> None:
    (path / "state.json").unlink()
    os.mkfifo(path / "state.json")


def damage_by_a_pipe_that_is_not_listed(path: Path) -> None:
    leave_out(path, "state.json")
    damage_by_a_pipe_that_is_listed(path)


def damage_by_a_link_that_is_not_listed(path: Path) -> None:
    leave_out(path, "state.json")
    (path / "state.json").unlink()
    (path / "state.json").symlink_to("/etc/passwd")


def leave_out(path: Path, name: str) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["files"][name]
    (path / MANIFEST).write_text(json.dumps(manifest))


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_by")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_skipped_with_a_note(store, damage):
    store.write(10, fill_with(b"good content"), info={"n": 1})
    store.write(20, fill_with(b"good content"), info={"n": 2})
    damage(store.path(20))
    notes: list[str] = []
    assert store.latest_good(notes.append).update == 10
    assert len(notes) == 1 and notes[0].startswith("Skipped checkpoint 20: ")
    with pytest.raises(RunError):
        store.load(20)


def test_what_the_system_leaves_in_a_folder_is_no_damage(store):
    store.write(10, fill_with(b"1"))
    (store.path(10) / ".DS_Store").write_text("finder")
    assert store.latest_good().update == 10


@pytest.mark.parametrize("name", ["10", "0000100", "00010x", "-00100", "٠٠٠١٠٠", ".tmp-000100-ab", "000100 "])
def test_other_names_are_not_checkpoints(store, name):
    store.write(100, fill_with(b"1"))
    (store.directory / name).mkdir()
    assert store.updates() == [100]


def test_links_and_files_are_not_checkpoints(store, tmp_path):
    store.write(10, fill_with(b"1"))
    shutil.copytree(store.path(10), tmp_path / "elsewhere")
    (store.directory / "000020").symlink_to(tmp_path / "elsewhere")
    (store.directory / "000030").write_text("")
    assert store.updates() == [10]
    with pytest.raises(RunError, match="not a directory"):
        store.load(20)


def test_a_users_file_in_a_checkpoint_survives(store):
    for update in (10, 20):
        store.write(update, fill_with(b"1"))
        (store.path(update) / "notes.txt").write_text("precious")
    store.write(20, fill_with(b"2"))
    assert (store.directory / "kept-000020" / "notes.txt").read_text() == "precious"
    assert store.prune(1) == [10]
    assert os.listdir(store.directory / "kept-000010") == ["notes.txt"]
    (store.path(20) / "notes.txt").write_text("more")
    (store.path(20) / MANIFEST).write_text("{")
    store.remove_after(0)
    assert sorted(os.listdir(store.directory)) == ["kept-000010", "kept-000020", "kept-000020-2"]
    assert os.listdir(store.directory / "kept-000020-2") == ["notes.txt"]


def test_prune_keeps_the_last_ones(store):
    for update in range(10, 70, 10):
        store.write(update, fill_with(b"1"))
    assert store.prune(2, trunk=30) == [10, 20, 40]
    assert store.prune(2, good=35, trunk=40) == []
    assert store.prune(2, trunk=40) == [30]
    assert store.updates() == [50, 60]
    assert store.prune(5) == []
    with pytest.raises(ValueError, match="at least 1"):
        store.prune(0)


def test_remove_after_takes_what_lies_beyond(store):
    for update in (10, 20, 30):
        store.write(update, fill_with(b"1"))
    assert store.remove_after(10) == [30, 20]
    assert store.updates() == [10]


def test_a_checkpoint_needs_a_file_and_a_failed_one_leaves_nothing(store):
    with pytest.raises(ValueError, match="at least one file"):
        store.write(10, lambda directory: None)
    assert os.listdir(store.directory) == []


def test_a_kill_at_every_file_operation_leaves_a_good_checkpoint(store, killed_at_event):
    store.write(10, fill_with(b"first"))
    for number in count(1):
        killed = killed_at_event(lambda: store.write(20, fill_with(b"second")), number)
        latest = store.latest_good(pytest.fail)
        assert latest.update in (10, 20)
        store.recover()
        assert store.updates() == ([10, 20] if latest.update == 20 else [10])
        assert not [name for name in os.listdir(store.directory) if name.startswith(TEMPORARY_PREFIX)]
        if not killed:
            break
        store.remove_after(10)
    assert latest.update == 20 and number > 10


def test_a_kill_at_every_file_operation_of_a_replacement_loses_neither(store, killed_at_event):
    seen = set()
    for number in count(1):
        store.write(10, fill_with(b"old"))
        killed = killed_at_event(lambda: store.write(10, fill_with(b"new")), number)
        store.recover()
        latest = store.latest_good(pytest.fail)
        seen.add((latest.path / "adapters.safetensors").read_bytes())
        assert os.listdir(store.directory) == ["000010"]
        if not killed:
            break
    assert seen == {b"old", b"new"}


def test_a_kill_at_every_file_operation_of_a_pruning_leaves_the_last_one(store, killed_at_event):
    for number in count(1):
        for update in (10, 20, 30):
            store.write(update, fill_with(b"1"))
        killed = killed_at_event(lambda: store.prune(1), number)
        store.recover()
        assert store.latest_good(pytest.fail).update == 30
        for update in store.updates():
            store.load(update)
        if not killed:
            break
    assert store.updates() == [30]


def test_a_kill_at_any_time_leaves_a_good_checkpoint(store, killed_after, moments):
    content = os.urandom(200_000)

    def work() -> None:
        latest = store.latest_good()
        store.write((latest.update if latest else 0) + 1, fill_with(content))
        store.prune(2)

    work()
    last = 1
    for number, moment in enumerate(islice(moments, 20)):
        killed_after(work, moment + 0.02 * number)  # on a busy machine a write takes longer than a moment
        store.recover()
        latest = store.latest_good(pytest.fail)
        assert latest.update >= last
        last = latest.update
    assert last > 1


def test_a_full_disk_keeps_the_last_good_one(small_disk):
    store = Checkpoints(small_disk / "checkpoints")
    store.write(10, fill_with(b"good"))
    with pytest.raises(StorageError, match="No space left"):
        store.write(20, fill_with(b"x" * 1_000_000))
    assert store.updates() == [10]
    assert store.latest_good().update == 10
    store.write(20, fill_with(b"small again"))
    assert store.updates() == [10, 20]


def test_a_deleted_run_directory_is_reported_and_not_made_again(tmp_path):
    store = Checkpoints(tmp_path / "run" / "checkpoints")
    with pytest.raises(StorageError, match="removed or renamed"):
        store.write(10, fill_with(b"1"))
    assert not (tmp_path / "run").exists()
