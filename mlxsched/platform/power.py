"""Laptops: keep them awake during a run, read the battery, detect sleep. Everything specific to macOS is here.

``caffeinate -i`` prevents idle sleep and does not affect the display (``-d`` would keep it on, which trips the display
watchdog); ``-w PID`` ends it with the process. ``pmset -g batt`` prints the power sources.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

POWER_SUPPLIES = Path("/sys/class/power_supply")


@dataclass(frozen=True)
class Battery:
    """The charge in percent, and whether the machine runs on external power."""

    percent: int
    on_ac: bool


@contextlib.contextmanager
def keep_awake(pid: int | None = None, *, system: str = sys.platform) -> Iterator[bool]:
    """Prevent idle sleep on macOS while the block runs and the process `pid` (ours) lives; yields whether it worked.

    Elsewhere it does nothing. ``caffeinate`` runs in its own session: a Ctrl-C reaches the whole foreground group, and
    would let the machine fall asleep during the last checkpoint.
    """
    holder = _caffeinate(os.getpid() if pid is None else pid) if system == "darwin" else None
    try:
        yield holder is not None
    finally:
        if holder is not None:
            holder.terminate()
            holder.wait()


def battery(*, system: str = sys.platform) -> Battery | None:
    """The state of the battery; None if there is none or it cannot be read."""
    if system == "darwin":
        return parse_pmset(_output_of(["pmset", "-g", "batt"]))
    return read_power_supplies(POWER_SUPPLIES)


def parse_pmset(text: str) -> Battery | None:
    """The battery in the output of ``pmset -g batt``.

    >>> parse_pmset('''Now drawing from 'Battery Power'
    ...  -InternalBattery-0 (id=4653155)\\t63%; discharging; 5:14 remaining present: true''')
    Battery(percent=63, on_ac=False)
    """
    source = re.search(r"drawing from '([^']*)'", text)
    charges = [int(found) for found in re.findall(r"-InternalBattery-\d+.*?\s(\d{1,3})%;", text)]
    if source is None or not charges:
        return None
    return Battery(min(charges), source[1] == "AC Power")


def read_power_supplies(root: Path) -> Battery | None:
    """The battery in a tree like Linux's ``/sys/class/power_supply``; batteries of peripherals do not count."""
    supplies = [_read_supply(folder) for folder in sorted(root.glob("*"))]
    batteries = [
        supply
        for supply in supplies
        if supply["type"] == "Battery" and supply["scope"] != "Device" and supply["capacity"].isdigit()
    ]
    if not batteries:
        return None
    plugged = any(supply["online"] == "1" for supply in supplies if supply["type"] in ("Mains", "USB"))
    draining = any(supply["status"] == "Discharging" for supply in batteries)
    return Battery(min(int(supply["capacity"]) for supply in batteries), plugged or not draining)


def wait_for_power(
    threshold: int,
    *,
    poll: float = 30.0,
    on_wait: Callable[[Battery], None] = lambda state: None,
    stop: Callable[[], bool] = lambda: False,
    read: Callable[[], Battery | None] = battery,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait while the battery is below `threshold` percent and discharging; returns whether there was a wait.

    `on_wait` is called once, when the wait begins; `stop` is asked each time the battery is read, every `poll` seconds.
    """
    state = read()
    if state is None or not is_low(state, threshold):
        return False
    on_wait(state)
    while is_low(read(), threshold) and not stop():
        sleep(poll)
    return True


def is_low(state: Battery | None, threshold: int) -> bool:
    """Whether a run should pause: on battery, and below `threshold` percent."""
    return state is not None and not state.on_ac and state.percent < threshold


class SleepWatch:
    """Detects that the machine slept: the wall clock advanced and the monotonic clock did not.

    A wall clock that is set forward looks the same; one that is set back is not taken for sleep. `check` is cheap enough to
    call at every update.
    """

    def __init__(
        self,
        *,
        tolerance: float = 10.0,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tolerance = tolerance
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()

    def check(self) -> float:
        """The seconds slept since the last call; 0.0 if below the tolerance, since clocks drift."""
        before, self._offset = self._offset, self._wall() - self._monotonic()
        slept = self._offset - before
        return slept if slept > self._tolerance else 0.0


def _caffeinate(pid: int) -> subprocess.Popen[bytes] | None:
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen(
            ["caffeinate", "-i", "-w", str(pid)],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
    except OSError:
        return None


def _output_of(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _read_supply(folder: Path) -> dict[str, str]:
    return {name: _read_word(folder / name) for name in ("type", "scope", "capacity", "status", "online")}


def _read_word(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
