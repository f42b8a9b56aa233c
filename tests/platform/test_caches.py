"""Cache folders: what is in them, who holds it, and what goes first when room is needed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from types import SimpleNamespace

import pytest

from mlxsched.platform.caches import HEADER, MOST_BYTES, discard, entries, hold, make_room, remove, sweep

DAY = 86400
CALLED: dict[str, str] = {}


def key(name: str) -> str:
    """The name of the entry's directory: a hash, as the caches name them."""
    found = hashlib.sha256(name.encode()).hexdigest()[:32]
    CALLED[found] = name
    return found


@pytest.fixture
def entry(tmp_path):
    """Make an entry of ``size`` bytes, last used ``days`` ago."""

    def make(name: str, size: int = 1000, days: float = 0):
        path = tmp_path / key(name)
        path.mkdir()
        (path / HEADER).write_text("{}")
        (path / "content").write_bytes(bytes(size - 2))
        used = time.time() - days * DAY
        os.utime(path / HEADER, (used, used))
        return path

    return make


@pytest.fixture
def free(monkeypatch):
    """Say how much the disk has free."""

    def say(size: int):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))

    return say


def names(folder):
    return [CALLED[entry.path.name] for entry in entries(folder)]


def test_entries_are_listed_by_their_last_use(entry, tmp_path):
    entry("new", 10)
    entry("old", 30, days=3)
    (tmp_path / ".new-abandoned").mkdir()
    (tmp_path / "a file").touch()
    (tmp_path / "link").symlink_to(tmp_path / key("old"))
    (tmp_path / key("linked")).symlink_to(tmp_path / key("old"))
    assert [(CALLED[e.path.name], e.size) for e in entries(tmp_path)] == [("old", 30), ("new", 10)]
    assert entries(tmp_path)[0].used == pytest.approx(time.time() - 3 * DAY, abs=5)
    assert entries(tmp_path / "nowhere") == []


def test_an_entry_is_held_by_one_at_a_time(entry, tmp_path):
    path = entry("a")
    assert not entries(tmp_path)[0].in_use
    first = hold(path)
    assert hold(path) is None
    assert entries(tmp_path)[0].in_use
    assert not remove(path) and path.exists()
    os.close(first)
    assert not entries(tmp_path)[0].in_use
    assert remove(path)
    assert list(tmp_path.iterdir()) == []
    assert remove(path)  # gone is gone
    with pytest.raises(FileNotFoundError):
        hold(path)


def test_a_lock_on_what_was_removed_in_between_is_no_lock(entry, tmp_path, monkeypatch):
    path, flock = entry("a"), fcntl.flock

    def late(descriptor, how):
        discard(path)
        entry("a")
        (path / ".lock").touch()
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    assert hold(path) is None


def test_the_least_recently_used_make_room(entry, tmp_path, free):
    for name, days in (("oldest", 3), ("older", 2), ("newest", 1)):
        entry(name, days=days)
    free(9000)  # and 3,000 taken: a quarter of 12,000 may be used
    assert make_room(tmp_path, 900)
    assert names(tmp_path) == ["older", "newest"]
    free(10000)  # now that it is gone
    assert make_room(tmp_path, 900)
    assert names(tmp_path) == ["older", "newest"]


def test_what_is_held_stays_and_what_can_not_fit_costs_nobody_anything(entry, tmp_path, free):
    held = hold(entry("held", days=2))
    entry("other", days=1)
    free(6000)
    assert not make_room(tmp_path, 2500)
    assert names(tmp_path) == ["held", "other"]
    assert not make_room(tmp_path, 1500)  # the one that may go is not enough
    assert names(tmp_path) == ["held"]
    os.close(held)


def test_there_is_a_limit_on_large_disks_too(tmp_path, free):
    free(10**15)
    assert make_room(tmp_path, MOST_BYTES)
    assert not make_room(tmp_path, MOST_BYTES + 1)


def test_what_was_long_unused_goes_anyway(entry, tmp_path):
    entry("forgotten", days=31)
    entry("remembered", days=29)
    assert make_room(tmp_path, 10)
    assert names(tmp_path) == ["remembered"]


def test_a_removal_that_was_killed_is_completed(entry, tmp_path):
    entry("a").rename(tmp_path / ".gone-0123456789ab")
    (tmp_path / ".gone-fishing").mkdir()
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".gone-fishing"]


def test_directories_of_the_users_are_no_entries_and_stay(tmp_path, free):
    """MLXSCHED_CACHE may name a folder in which there is a folder `rows` of somebody else's."""
    for name in ("thesis", "0123", "A" * 32, "g" * 32):
        (tmp_path / name).mkdir()
        (tmp_path / name / HEADER).write_text("{}")
        os.utime(tmp_path / name / HEADER, (0, 0))
    free(0)
    assert entries(tmp_path) == []
    assert not make_room(tmp_path, 10)
    assert len(list(tmp_path.iterdir())) == 4
