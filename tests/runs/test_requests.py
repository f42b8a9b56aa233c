"""What is asked of a run: entries of run.json, and the file for a process that is training."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, replace

import pytest

from mlxsched.errors import UserError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.requests import REQUEST_FILE, CooldownAsked, Request, ask, is_asked, read_asked

REVISION = {"at": 8, "updates": 30, "schedule": {"name": "constant", "peak": 1e-3}, "reason": "longer"}
EARLIER = {**REVISION, "at": 2, "updates": 20, "schedule": None}
REQUEST = Request("extend", "a1", 8, (EARLIER, REVISION), 12.5, "earlier/000020", "2026-01-01T00:00:00+00:00")
OURS = CooldownAsked("a1", os.getpid(), socket.gethostname(), 10, "linear", 1e-6)


@pytest.fixture
def run(tmp_path):
    return RunDirectory.create(tmp_path / "run", config={}, origins={}, plan={}, versions={})


def test_accepted_requests_are_read_back_in_order(run):
    with run.lock():
        run.accept(REQUEST)
        run.accept(replace(REQUEST, id="a2"), status="stopped")
    info = RunDirectory.open(run.path).info
    assert info.requests == (REQUEST, replace(REQUEST, id="a2"))
    assert info.status == "stopped" and info.updates == 30


def test_a_run_without_requests_has_the_length_of_its_plan(run):
    text = json.loads((run.path / "run.json").read_text())
    del text["requests"]  # as an earlier version wrote it
    (run.path / "run.json").write_text(json.dumps(text))
    assert RunDirectory.open(run.path).info.requests == ()
    assert RunDirectory.open(run.path).info.updates is None


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "delete"},
        {"at": 9},
        {"revisions": []},
        {"revisions": [{**REVISION, "at": -1}]},
        {"revisions": [{**REVISION, "updates": 7}]},
        {"revisions": [{**REVISION, "more": 1}]},
        {"max_time": "long"},
        {"max_time": -1},
        {"kept": "../../home"},
        {"id": 7},
        {"other": 1},
    ],
)
def test_a_request_that_no_run_of_ours_has_is_refused(run, change):
    text = json.loads((run.path / "run.json").read_text())
    text["requests"] = [{**REQUEST.to_dict(), **change}]
    (run.path / "run.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="'requests' can't be read"):
        RunDirectory.open(run.path)
    text["requests"] = {}
    (run.path / "run.json").write_text(json.dumps(text))
    with pytest.raises(UserError, match="'requests' must be a list"):
        RunDirectory.open(run.path)


def test_a_checkpoint_belongs_to_a_request_if_its_revisions_begin_with_those_of_the_request():
    later = {**REVISION, "at": 12}
    assert REQUEST.holds_for([EARLIER, REVISION]) and REQUEST.holds_for([EARLIER, REVISION, later])
    assert (
        not REQUEST.holds_for([EARLIER]) and not REQUEST.holds_for([REVISION]) and not REQUEST.holds_for([])
    )


def test_a_request_to_this_process_is_read_until_it_is_withdrawn(tmp_path):
    assert read_asked(tmp_path) is None
    ask(tmp_path, OURS)
    assert read_asked(tmp_path) == read_asked(tmp_path) == OURS
    assert is_asked(tmp_path, "a1") and not is_asked(tmp_path, "a2")


@pytest.mark.parametrize(
    "change",
    [
        {"pid": 1},
        {"host": "elsewhere"},
        {"steps": 0},
        {"steps": 1.5},
        {"shape": "rm"},
        {"end_lr": -1},
        {"x": 1},
    ],
)
def test_a_request_that_is_damaged_or_out_of_date_is_removed(tmp_path, change):
    (tmp_path / REQUEST_FILE).write_text(json.dumps({**asdict(OURS), **change}))
    assert read_asked(tmp_path) is None
    assert not (tmp_path / REQUEST_FILE).exists()


@pytest.mark.parametrize("content", ["", "[]", "{", "x" * 5000, '{"id": NaN}'])
def test_a_file_that_is_no_request_is_removed(tmp_path, content):
    (tmp_path / REQUEST_FILE).write_text(content)
    assert read_asked(tmp_path) is None
    assert not (tmp_path / REQUEST_FILE).exists()


def test_a_link_in_place_of_the_request_is_not_followed(tmp_path):
    target = tmp_path / "mine.json"
    target.write_text(json.dumps(asdict(OURS)))
    (tmp_path / REQUEST_FILE).symlink_to(target)
    assert read_asked(tmp_path) is None and target.exists()
