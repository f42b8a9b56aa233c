"""The macOS branch is tested with outputs of ``pmset -g batt`` in the form that macOS prints them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlxsched.platform.power import (
    Battery,
    SleepWatch,
    battery,
    is_low,
    keep_awake,
    parse_pmset,
    read_power_supplies,
    wait_for_power,
)

AC = "Now drawing from 'AC Power'\n"
ON_BATTERY = "Now drawing from 'Battery Power'\n"
CELL = " -InternalBattery-0 (id=4653155)\t"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AC + CELL + "100%; charged; 0:00 remaining present: true\n", Battery(100, True)),
        (AC + CELL + "87%; charging; 0:41 remaining present: true\n", Battery(87, True)),
        (AC + CELL + "80%; AC attached; not charging present: true\n", Battery(80, True)),
        (AC + CELL + "99%; finishing charge; 0:05 remaining present: true\n", Battery(99, True)),
        (ON_BATTERY + CELL + "63%; discharging; 5:14 remaining present: true\n", Battery(63, False)),
        (ON_BATTERY + CELL + "9%; discharging; (no estimate) present: true\n", Battery(9, False)),
        (ON_BATTERY + " -InternalBattery-0\t55%; discharging; (no estimate)\n", Battery(55, False)),
        (
            ON_BATTERY + CELL + "63%; discharging; 5:14 remaining present: true\n"
            " -InternalBattery-1 (id=4653156)\t12%; discharging; 1:00 remaining present: true\n",
            Battery(12, False),
        ),
        (AC, None),
        ("", None),
        ("pmset: error 1\n", None),
        (AC + CELL + "(removed) present: false\n", None),
    ],
)
def test_what_pmset_prints(text, expected):
    assert parse_pmset(text) == expected


def supply(root: Path, name: str, **files: str) -> None:
    (root / name).mkdir()
    for file, text in files.items():
        (root / name / file).write_text(text + "\n")


def test_a_linux_laptop_on_battery_and_on_ac(tmp_path):
    supply(tmp_path, "AC", type="Mains", online="0")
    supply(tmp_path, "BAT0", type="Battery", capacity="41", status="Discharging")
    assert read_power_supplies(tmp_path) == Battery(41, False)
    (tmp_path / "AC" / "online").write_text("1\n")
    (tmp_path / "BAT0" / "status").write_text("Charging\n")
    assert read_power_supplies(tmp_path) == Battery(41, True)


def test_the_battery_of_a_mouse_is_none_of_ours(tmp_path):
    supply(tmp_path, "hidpp_battery_0", type="Battery", scope="Device", capacity="5", status="Discharging")
    assert read_power_supplies(tmp_path) is None


def test_a_battery_that_is_not_draining_counts_as_ac(tmp_path):
    supply(tmp_path, "BAT0", type="Battery", capacity="100", status="Full")
    assert read_power_supplies(tmp_path) == Battery(100, True)


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"high"])
def test_a_battery_that_cannot_be_read_is_no_battery(tmp_path, content):
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    if content is not None:
        (tmp_path / "BAT0" / "capacity").write_bytes(content)
    assert read_power_supplies(tmp_path) is None
    assert read_power_supplies(tmp_path / "none") is None


def stand_in(folder: Path, name: str, script: str) -> None:
    """An executable of our own under the name of a macOS tool."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_the_battery_is_asked_of_pmset_on_macos(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert battery(system="darwin") is None  # no such tool
    stand_in(tmp_path, "pmset", f'[ "$*" = "-g batt" ] && printf "{ON_BATTERY}{CELL}21%%; discharging;"')
    assert battery(system="darwin") == Battery(21, False)


def wait_until(true, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.01)
    assert true()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_caffeinate_is_held_as_long_as_the_block_and_never_the_display(tmp_path, monkeypatch):
    log = tmp_path / "log"
    stand_in(
        tmp_path,
        "caffeinate",
        f'echo "$$ $*" > {log}.part; mv {log}.part {log}\nexec sleep 60',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with keep_awake(system="darwin") as held:
        assert held
        wait_until(log.exists)
        number, *arguments = log.read_text().split()
        pid = int(number)
        assert arguments == ["-i", "-w", str(os.getpid())]
        assert os.getsid(pid) == pid, "a Ctrl-C of the terminal must not reach it"
        assert not gone(pid)
    assert gone(pid)


def test_without_caffeinate_and_elsewhere_training_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with keep_awake(system="darwin") as held:
        assert not held
    with keep_awake(system="linux") as held:
        assert not held


def test_a_low_battery_is_waited_for_until_power_is_back():
    states = [Battery(19, False), Battery(18, False), Battery(17, False), Battery(17, True)]
    told, slept = [], []
    waited = wait_for_power(20, poll=7.0, on_wait=told.append, read=lambda: states.pop(0), sleep=slept.append)
    assert waited and told == [Battery(19, False)] and slept == [7.0, 7.0] and states == []


@pytest.mark.parametrize("state", [None, Battery(20, False), Battery(3, True)])
def test_no_wait_without_need(state):
    assert not is_low(state, 20)
    assert not wait_for_power(20, on_wait=pytest.fail, read=lambda: state, sleep=pytest.fail)


def test_a_wait_can_be_stopped():
    asked = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    assert wait_for_power(20, poll=0.001, read=lambda: Battery(5, False), stop=stop)
    assert len(asked) == 3


def test_sleep_is_noticed_once_and_drift_is_not():
    wall, monotonic = [1000.0], [50.0]
    watch = SleepWatch(wall=lambda: wall[0], monotonic=lambda: monotonic[0])

    def pass_time(awake: float, asleep: float) -> float:
        monotonic[0] += awake
        wall[0] += awake + asleep
        return watch.check()

    assert pass_time(60, 0) == 0.0
    assert pass_time(5, 3600) == 3600.0
    assert pass_time(5, 0) == 0.0
    assert pass_time(5, 2) == 0.0  # adjusted by a time server
    assert pass_time(5, -7200) == 0.0
    assert pass_time(5, 30) == 30.0


def test_the_real_clocks_run_together():
    watch = SleepWatch()
    time.sleep(0.05)
    assert watch.check() == 0.0


def test_the_module_loads_without_anything_heavy():
    code = "import sys, mlxsched.platform.power, mlxsched.platform.signals; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"
