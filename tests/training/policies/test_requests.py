"""A run that is going on answers a request for a cooldown."""

from __future__ import annotations

import os
import socket

import pytest

import mlxsched as ms
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.requests import REQUEST_FILE, CooldownAsked, ask
from mlxsched.training.pace import Horizon, Pace
from mlxsched.training.policies.base import Report, Revise
from mlxsched.training.policies.requests import Requests
from mlxsched.training.progress import Progress


@pytest.fixture
def run(tmp_path):
    made = RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})
    with made.lock():
        yield made


def answers(run, pace, update, *, done=False):
    """What the policy says, with each revision carried out as the loop does."""
    found = []
    for action in Requests(run, pace, 1e-6).between_updates(Progress(update=update), done=done):
        if isinstance(action, Revise):
            pace.revise(action.revision)
        found.append(action)
    return found


def asked(steps=None, **more):
    return CooldownAsked("a1", os.getpid(), socket.gethostname(), steps, **more)


def test_a_request_becomes_a_revision_and_is_recorded_before_the_next_update(run):
    pace = Pace(Horizon(1000, ms.constant(1e-3)))
    assert answers(run, pace, 100) == []
    ask(run.path, asked())
    _, report = answers(run, pace, 100)
    assert pace.updates == 120 and pace.rate(100) == 1e-3 and pace.rate(120) == pytest.approx(1e-6)
    assert report.notice.code == "cooldown" and "120 updates" in report.notice.message
    (request,) = RunDirectory.open(run.path).info.requests
    assert (request.kind, request.id, request.at) == ("cooldown", "a1", 100)
    assert list(request.revisions) == pace.horizon.to_list()
    assert not (run.path / REQUEST_FILE).exists() and answers(run, pace, 101) == []


def test_length_shape_and_end_are_those_that_were_asked_for(run):
    pace = Pace(Horizon(1000, ms.constant(1e-3)))
    pace.factor = 0.5
    ask(run.path, asked(40, shape="linear", end_lr=1e-4))
    answers(run, pace, 100)
    assert pace.updates == 140
    assert [pace.rate(u) for u in (100, 120, 140)] == pytest.approx([5e-4, 3e-4, 1e-4])


def test_the_reason_of_a_refusal_is_there_before_the_answer(run):
    ask(run.path, asked())
    policy = Requests(run, Pace(Horizon(100, ms.constant(0.0))), 0.0)
    reports = iter(policy.between_updates(Progress(update=100), done=False))
    assert isinstance(next(reports), Report) and (run.path / REQUEST_FILE).exists()
    assert next(reports, None) is None and not (run.path / REQUEST_FILE).exists()


@pytest.mark.parametrize("done", [False, True])
def test_a_request_that_comes_too_late_is_refused(run, done):
    pace = Pace(Horizon(100, ms.constant(1e-3 if done else 0.0)))
    ask(run.path, asked())
    (report,) = answers(run, pace, 100, done=done)
    assert isinstance(report, Report) and report.notice.code == "request_refused"
    assert RunDirectory.open(run.path).info.requests == () and not (run.path / REQUEST_FILE).exists()
