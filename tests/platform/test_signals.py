from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from mlxsched.platform.signals import SIGNALS, StopRequest

WORKER = """
import sys, time
from mlxsched.platform.signals import StopRequest
with StopRequest(lambda number: print("first", number, flush=True)) as stop:
    print("ready", flush=True)
    while not (stop and sys.argv[1] == "polite"):
        time.sleep(0.01)
print("clean end", stop.signal_number, flush=True)
"""


def start(manner: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*prefix, sys.executable, "-c", WORKER, manner]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def skip_if_ignored(number: int) -> None:
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("ignored here, as under nohup, and therefore in the worker")


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_lets_the_work_come_to_its_end(number):
    skip_if_ignored(number)
    process = start("polite")
    process.send_signal(number)
    output, errors = process.communicate(timeout=10)
    assert output == f"first {int(number)}\nclean end {int(number)}\n"
    assert errors == "" and process.returncode == 0


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_it_at_once(second):
    skip_if_ignored(second)
    process = start("stubborn")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "first 2\n"
    process.send_signal(second)
    output, errors = process.communicate(timeout=10)
    assert output == "" and errors == "" and process.returncode == -second


SPEAKER = """
import os, signal, sys
from mlxsched.platform.signals import StopRequest, say
with StopRequest(on_second=lambda number: say("last words")):
    sys.stderr = None  # what says them needs no stream of Python's
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    print("never")
"""


def test_the_second_signal_leaves_time_for_last_words():
    found = subprocess.run([sys.executable, "-c", SPEAKER], capture_output=True, text=True)
    assert (found.stdout, found.stderr, found.returncode) == ("", "\nlast words\n", -signal.SIGINT)


def test_a_shell_sees_130_after_the_second():
    process = start("stubborn", prefix=("sh", "-c", '"$@"; echo "status $?"', "sh"))
    worker = int(subprocess.check_output(["pgrep", "-P", str(process.pid)], text=True).split()[0])
    os.kill(worker, signal.SIGINT)
    assert process.stdout.readline() == "first 2\n"
    os.kill(worker, signal.SIGINT)
    assert process.communicate(timeout=10)[0] == "status 130\n"


def test_nohup_is_respected():
    process = start("polite", prefix=("nohup",))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=10)[0] == "first 15\nclean end 15\n"


def test_previous_handlers_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopRequest():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_request_is_false_until_a_signal_comes():
    with StopRequest() as stop:
        assert not stop and stop.signal_number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop and stop.signal_number == signal.SIGTERM


def test_outside_the_main_thread_it_does_nothing():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def work() -> None:
        with StopRequest() as stop:
            seen.append((bool(stop), signal.getsignal(signal.SIGINT) is before))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, True)]
