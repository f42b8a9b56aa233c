from __future__ import annotations

import json
import os
import resource
import stat
from itertools import count, islice
from pathlib import Path

import pytest

from mlxsched.errors import MlxschedError, RunError
from mlxsched.runs import atomic

OLD = {"version": "old", "text": "o" * 300_000}
NEW = {"version": "new", "text": "n" * 500_000}


def fill_with(**files: str):
    def fill(directory: Path) -> None:
        for name, text in files.items():
            (directory / name).write_text(text)

    return fill


def temporaries(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if name.startswith(atomic.TEMPORARY_PREFIX)]


def test_write_json_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "run.json"
    atomic.write_json(path, OLD)
    atomic.write_json(path, NEW)
    assert json.loads(path.read_text()) == NEW
    assert os.listdir(tmp_path) == ["run.json"]


def test_write_json_refuses_what_json_has_not(tmp_path):
    atomic.write_json(tmp_path / "run.json", OLD)
    with pytest.raises(ValueError):
        atomic.write_json(tmp_path / "run.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "run.json").read_text()) == OLD


def test_permissions_are_kept_and_new_files_follow_the_umask(tmp_path):
    path = tmp_path / "a"
    before = os.umask(0o027)
    try:
        atomic.write_text(path, "one")
        atomic.new_directory(tmp_path / "d", fill_with(x="1"))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    path.chmod(0o604)
    atomic.write_text(path, "two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o604


def test_a_link_is_replaced_and_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    (tmp_path / "run.json").symlink_to(outside)
    atomic.write_text(tmp_path / "run.json", "ours")
    assert outside.read_text() == "untouched"
    assert not (tmp_path / "run.json").is_symlink()


def test_a_kill_at_every_file_operation_leaves_old_or_new(tmp_path, killed_at_event):
    path = tmp_path / "run.json"
    seen = set()
    for number in count(1):
        atomic.write_json(path, OLD)
        killed = killed_at_event(lambda: atomic.write_json(path, NEW), number)
        seen.add(json.loads(path.read_text())["version"])
        atomic.remove_temporaries(tmp_path)
        assert os.listdir(tmp_path) == ["run.json"]
        if not killed:
            break
    assert seen == {"old", "new"}
    assert number > 3


def test_a_kill_at_any_time_leaves_a_whole_file(tmp_path, killed_after, moments):
    path = tmp_path / "run.json"
    atomic.write_json(path, OLD)

    def work() -> None:
        atomic.write_json(path, NEW)
        atomic.write_json(path, OLD)

    for moment in islice(moments, 30):
        killed_after(work, moment)
        assert json.loads(path.read_text()) in (OLD, NEW)


def test_a_reader_never_sees_a_part(tmp_path, watching):
    path = tmp_path / "run.json"
    atomic.write_json(path, OLD)

    def work() -> None:
        for _ in range(20):
            atomic.write_json(path, NEW)
            atomic.write_json(path, OLD)

    assert watching(work, lambda: json.loads(path.read_text())["version"]) > 0


def test_a_full_disk_keeps_the_old_file_and_says_so(small_disk):
    path = small_disk / "run.json"
    atomic.write_text(path, "good")
    with pytest.raises(atomic.StorageError, match="No space left.*Free some space"):
        atomic.write_bytes(path, b"x" * 1_000_000)
    assert path.read_text() == "good"
    assert os.listdir(small_disk) == ["run.json"]
    assert os.statvfs(small_disk).f_bavail > 0


def test_a_limit_on_file_size_keeps_the_old_file(tmp_path):
    path = tmp_path / "run.json"
    atomic.write_text(path, "good")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))  # Python ignores SIGXFSZ
    try:
        with pytest.raises(atomic.StorageError, match="ulimit"):
            atomic.write_bytes(path, b"x" * 1_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "good"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_deleted_directory_is_not_made_again(tmp_path):
    with pytest.raises(atomic.StorageError, match="removed or renamed") as caught:
        atomic.write_text(tmp_path / "gone" / "run.json", "x")
    assert isinstance(caught.value, RunError) and caught.value.exit_code == 1
    with pytest.raises(atomic.StorageError, match="removed or renamed"):
        atomic.new_directory(tmp_path / "gone" / "000100", fill_with(a="x"))
    assert not (tmp_path / "gone").exists()


def test_a_file_in_place_of_a_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(atomic.StorageError, match="A file is where a directory should be"):
        atomic.write_text(tmp_path / "file" / "run.json", "x")


def test_a_kill_at_every_file_operation_leaves_no_part_of_a_new_directory(tmp_path, killed_at_event):
    final = tmp_path / "000100"
    for number in count(1):
        killed = killed_at_event(lambda: atomic.new_directory(final, fill_with(a="1", b="2")), number)
        if final.exists():
            assert sorted(os.listdir(final)) == ["a", "b"]
            break
        assert killed
        atomic.remove_temporaries(tmp_path)
        assert os.listdir(tmp_path) == []
    assert number > 5


def test_a_failure_while_filling_leaves_nothing(tmp_path):
    def fill(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic.new_directory(tmp_path / "000100", fill)
    assert os.listdir(tmp_path) == []


def test_what_mlx_raises_for_a_failed_write_becomes_a_storage_error(tmp_path):
    def fill(directory: Path) -> None:
        raise RuntimeError("[write] Unable to write 9 bytes to file.")

    with pytest.raises(atomic.StorageError, match="Unable to write 9 bytes"):
        atomic.new_directory(tmp_path / "000100", fill)


def test_errors_of_ours_pass_through_a_fill(tmp_path):
    def fill(directory: Path) -> None:
        raise MlxschedError("diverged")

    with pytest.raises(MlxschedError, match="^diverged$"):
        atomic.new_directory(tmp_path / "000100", fill)


def test_a_directory_with_something_in_it_is_not_overwritten(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("keep")
    with pytest.raises(atomic.StorageError):
        atomic.new_directory(tmp_path / "d", fill_with(a="1"))
    assert (tmp_path / "d" / "mine").read_text() == "keep"
    assert os.listdir(tmp_path) == ["d"]


def test_replace_directory_leaves_unchanged_files_and_those_it_did_not_write_alone(tmp_path):
    final = tmp_path / "adapters"
    atomic.replace_directory(final, fill_with(config="c", weights="1", old="x"))
    config = (final / "config").stat().st_ino
    atomic.replace_directory(final, fill_with(config="c", weights="2"))
    assert (final / "config").stat().st_ino == config
    assert {path.name: path.read_text() for path in final.iterdir()} == {
        "config": "c",
        "weights": "2",
        "old": "x",
    }
    assert temporaries(tmp_path) == []


def test_a_kill_at_every_file_operation_leaves_a_usable_adapter(tmp_path, killed_at_event):
    final = tmp_path / "adapters"
    old, new = "o" * 50_000, "n" * 70_000
    seen = set()
    for number in count(1):
        atomic.replace_directory(final, fill_with(config="c", weights=old))
        killed = killed_at_event(
            lambda: atomic.replace_directory(final, fill_with(config="c", weights=new)), number
        )
        assert (final / "config").read_text() == "c"
        seen.add((final / "weights").read_text())
        atomic.remove_temporaries(tmp_path)
        assert os.listdir(tmp_path) == ["adapters"]
        if not killed:
            break
    assert seen == {old, new}


def test_a_reader_of_an_adapter_always_finds_both_files(tmp_path, watching):
    final = tmp_path / "adapters"
    versions = ["a" * 100_000, "b" * 120_000]
    atomic.replace_directory(final, fill_with(config="c", weights=versions[0]))

    def work() -> None:
        for number in range(30):
            atomic.replace_directory(final, fill_with(config="c", weights=versions[number % 2]))

    def look() -> None:
        assert (final / "config").read_text() == "c"
        assert (final / "weights").read_text() in versions

    assert watching(work, look) > 0


def test_a_full_disk_keeps_the_adapter(small_disk):
    final = small_disk / "adapters"
    atomic.replace_directory(final, fill_with(config="c", weights="good"))
    with pytest.raises(atomic.StorageError, match="No space left"):
        atomic.replace_directory(final, fill_with(config="c", weights="x" * 1_000_000))
    assert (final / "weights").read_text() == "good"
    assert temporaries(small_disk) == []


def test_a_full_disk_met_by_mlx_keeps_the_adapter(small_disk):
    mx = pytest.importorskip("mlx.core")
    final = small_disk / "adapters"
    atomic.replace_directory(final, fill_with(config="c"))
    weights = {"lora_a": mx.zeros((400, 400))}

    def fill(directory: Path) -> None:
        mx.save_safetensors(str(directory / "adapters.safetensors"), weights)

    with pytest.raises(atomic.StorageError):
        atomic.replace_directory(final, fill)
    assert os.listdir(final) == ["config"]
    assert os.listdir(small_disk) == ["adapters"]


def test_replace_files_touches_only_its_names_in_a_folder_of_the_users(tmp_path):
    folder = tmp_path / "mine"
    (folder / "sub").mkdir(parents=True)
    for name in ("thesis.txt", "weights", "sub/deep.txt"):
        (folder / name).write_text("precious")
    atomic.replace_files(folder, ("config", "weights"), fill_with(config="c", weights="w"))
    assert {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()} == {
        "thesis.txt": "precious",
        "deep.txt": "precious",
        "config": "c",
        "weights": "w",
    }
    assert sorted(os.listdir(tmp_path)) == ["mine"] and temporaries(folder) == []


def test_replace_files_makes_the_folder_and_refuses_other_names(tmp_path):
    atomic.replace_files(tmp_path / "a" / "b", ("weights",), fill_with(weights="w"))
    assert os.listdir(tmp_path / "a" / "b") == ["weights"]
    with pytest.raises(ValueError, match="only \\['weights'\\]"):
        atomic.replace_files(tmp_path / "a" / "b", ("weights",), fill_with(weights="x", thesis="y"))
    assert (tmp_path / "a" / "b" / "weights").read_text() == "w"


def test_a_kill_at_every_file_operation_of_replace_files_loses_nothing(tmp_path, killed_at_event):
    (tmp_path / "thesis.txt").write_text("precious")
    seen = set()
    for number in count(1):
        atomic.replace_files(tmp_path, ("config", "weights"), fill_with(config="c", weights="old"))
        killed = killed_at_event(
            lambda: atomic.replace_files(
                tmp_path, ("config", "weights"), fill_with(config="c", weights="new")
            ),
            number,
        )
        assert (tmp_path / "thesis.txt").read_text() == "precious"
        assert (tmp_path / "config").read_text() == "c"
        seen.add((tmp_path / "weights").read_text())
        if not killed:
            break
    assert seen == {"old", "new"}


@pytest.mark.parametrize("name", [".tmp-notes", ".tmp-notes-2024", ".tmp-", "tmp-a-0123456789ab"])
def test_a_users_file_with_a_similar_name_is_no_temporary(tmp_path, name):
    (tmp_path / name).write_text("mine")
    atomic.remove_temporaries(tmp_path)
    assert (tmp_path / name).exists()
    assert atomic._TEMPORARY.fullmatch(atomic.temporary_name("x" * 300))


def test_remove_files_leaves_nothing_of_ours_and_everything_else(tmp_path):
    atomic.new_directory(tmp_path / "d", fill_with(a="1", b="2"))
    atomic.remove_files(tmp_path / "d", ("a", "b"), leftovers="kept-d")
    assert os.listdir(tmp_path) == []
    for expected in ("kept-d", "kept-d-2"):
        atomic.new_directory(tmp_path / "d", fill_with(a="1", mine="precious"))
        atomic.remove_files(tmp_path / "d", ("a", "b"), leftovers="kept-d")
        assert os.listdir(tmp_path / expected) == ["mine"]
    assert sorted(os.listdir(tmp_path)) == ["kept-d", "kept-d-2"]


def test_a_lone_surrogate_is_written_as_an_escape_and_read_back(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"message": "caf\u00e9 \ud800"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"message": "caf\u00e9 \ud800"}
