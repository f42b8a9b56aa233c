from __future__ import annotations

import pytest

from mlxsched.runs.atomic import StorageError
from mlxsched.runs.events import Evaluated, Event, Notice
from mlxsched.runs.sinks import Sinks


class Failing:
    name = "the tracker"

    def __init__(self, after: int) -> None:
        self.received: list[Event] = []
        self._after = after

    def __call__(self, event: Event) -> None:
        self.received.append(event)
        if len(self.received) > self._after:
            raise ConnectionError("no route to host")


def test_every_sink_receives_every_event_the_recorder_first():
    seen: list[tuple[str, Event]] = []
    send = Sinks(*(lambda event, name=name: seen.append((name, event)) for name in ("record", "a", "b")))
    event = Evaluated(1, 2.0)
    send(event)
    assert seen == [("record", event), ("a", event), ("b", event)]


def test_a_sink_that_fails_is_reported_once_and_the_others_go_on():
    recorded: list[Event] = []
    shown: list[Event] = []
    tracker = Failing(after=1)
    send = Sinks(recorded.append, tracker, shown.append)
    events = [Evaluated(update, 2.0) for update in range(4)]
    for event in events:
        send(event)
    assert tracker.received == events[:2]
    assert recorded == shown == [*events[:2], recorded[2], *events[2:]]
    assert isinstance(recorded[2], Notice) and recorded[2].code == "sink_failed"
    assert "the tracker failed" in recorded[2].message and "no route to host" in recorded[2].message


def test_all_sinks_may_fail_also_while_one_failure_is_reported():
    recorded: list[Event] = []
    send = Sinks(recorded.append, Failing(after=0), Failing(after=1))
    send(Evaluated(0, 2.0))
    send(Evaluated(1, 2.0))
    assert [getattr(event, "code", "eval") for event in recorded] == [
        "eval",
        "sink_failed",
        "sink_failed",
        "eval",
    ]


def test_a_recorder_that_fails_ends_the_run():
    def record(event: Event) -> None:
        raise StorageError("the disk is full")

    shown: list[Event] = []
    with pytest.raises(StorageError):
        Sinks(record, shown.append)(Evaluated(0, 2.0))
    assert not shown
