from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading

import pytest

from mlxsched.errors import UsageError
from mlxsched.runs.lock import LOCK_NAME, RunLock

HOLDER = """
import sys, time
from pathlib import Path
from mlxsched.runs.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_by_whom(tmp_path, holder):
    with pytest.raises(
        UsageError, match=f"in use by process {holder.pid}\\. Wait for it.*--run-dir"
    ) as caught:
        RunLock(tmp_path).acquire()
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_lock_dies_with_its_owner(tmp_path, holder, number):
    holder.send_signal(number)
    holder.wait()
    with RunLock(tmp_path) as lock:
        assert lock.held


def test_the_same_process_does_not_get_it_twice(tmp_path):
    with RunLock(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()}"):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_it_is_let_go_after_an_error(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert not lock.held
    RunLock(tmp_path).acquire()


@pytest.mark.parametrize("text", ["", "not json", "[]", '{"pid": "x", "host": 1}', '{"pid": 3}', "\x1b[2J"])
def test_a_lock_file_with_anything_in_it_is_only_text(tmp_path, text):
    with RunLock(tmp_path):
        (tmp_path / LOCK_NAME).write_text(text)
        with pytest.raises(UsageError, match="in use by another process"):
            RunLock(tmp_path).acquire()


def test_another_host_is_named_without_its_escape_sequences(tmp_path):
    with RunLock(tmp_path):
        (tmp_path / LOCK_NAME).write_text('{"pid": 7, "host": "\\u001b[2Jelsewhere"}')
        with pytest.raises(UsageError, match=r"process 7 on '\\x1b\[2Jelsewhere'"):
            RunLock(tmp_path).acquire()


def test_it_works_on_a_full_disk(small_disk):
    (small_disk / LOCK_NAME).write_text("")
    with open(small_disk / "filler", "wb") as file, pytest.raises(OSError):
        file.write(b"x" * 1_000_000)
        file.flush()
    with RunLock(small_disk), pytest.raises(UsageError):
        RunLock(small_disk).acquire()


def test_a_look_at_the_lock_does_not_keep_its_owner_out(tmp_path):
    path = tmp_path / LOCK_NAME
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.03, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with RunLock(tmp_path) as lock:
            assert lock.held
