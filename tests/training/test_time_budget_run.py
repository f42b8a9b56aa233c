"""Real trainings with a time budget: interrupted and resumed, the decisions give the same run; and one by the real clock."""

from __future__ import annotations

import itertools
import time

import pytest

from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.training.pace import Revision
from mlxsched.training.policies.base import Policy, Report, Revise
from mlxsched.training.policies.time_budget import REASON, Budget, TimeBudget
from mlxsched.training.run import create_run, sinks_of, start
from mlxsched.training.timing import Work

TIMES = ("seconds", "tokens_per_second", "peak_memory_gb")


class Replay(Policy):
    """Makes the revisions of another run, where that made them."""

    def __init__(self, revisions):
        self._revisions = revisions

    def after_update(self, progress, made):
        for revision in self._revisions:
            if revision["at"] == progress.update:
                yield Revise(Revision(**revision))
                yield Report(Notice(progress.update, "time_budget", revision["reason"].removeprefix(REASON)))


def budget_of(loop, second):
    """A budget by a clock that moves by ``second`` of the reading's number at each reading."""
    clock = itertools.accumulate(second(number) for number in itertools.count())
    tokens = 150.0
    work = Work(tokens, lambda total: 10, 5)
    return TimeBudget(Budget(20.0, started=0.0), loop.pace, work, clock=lambda: next(clock))


def train_on(made, path, policy_of, *, until=None, resume=False):
    """Train to the end, or to ``until`` updates as a run that is killed there; ``policy_of`` makes its first policy."""
    run = RunDirectory.open(path) if resume else create_run(made, path)
    with run.lock():
        loop, _ = start(made, run, sinks_of(run), resume=resume)
        loop.policies[0] = policy_of(loop)
        while loop.progress.update != until and loop.step():
            pass
        if until is None:
            loop.finish()
    return loop


def records(path):
    found = RunDirectory.open(path).read_metrics()
    return [{key: value for key, value in record.items() if key not in TIMES} for record in found]


def test_a_run_with_revised_length_is_resumed_bit_for_bit(session, tmp_path):
    flags = {"iters": 400, "max_time": 1000, "learning_rate": 1e-3, "schedule": "linear"}
    policy = lambda loop: budget_of(loop, lambda n: 0.1 if n < 40 else 0.2)  # noqa: E731
    train_on(session(**flags), tmp_path / "killed", policy, until=23)
    slower = lambda loop: budget_of(loop, lambda n: 0.15)  # noqa: E731
    ended = train_on(session(**flags), tmp_path / "killed", slower, resume=True)
    revisions = ended.pace.horizon.to_list()
    assert len(revisions) > 1 and revisions[0]["at"] < 20 < revisions[-1]["at"] < ended.progress.update < 400
    train_on(session(**flags), tmp_path / "whole", lambda loop: Replay(revisions))
    assert records(tmp_path / "killed") == records(tmp_path / "whole")
    last = f"checkpoints/{ended.progress.update:06d}/optimizer.safetensors"
    for name in ("adapters/adapters.safetensors", last):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
def test_a_run_ends_on_time_by_the_real_clock(train):
    """A busy machine may stop us for seconds at any time; the limit leaves room for that."""
    train("warm", iters=5)  # what is compiled and imported once is not measured
    started = time.monotonic()
    run, progress, _ = train("timed", iters=100_000, max_time=20, learning_rate=1e-3)
    took = time.monotonic() - started
    assert 14 < took < 28
    made = [record for record in run.read_metrics() if record["kind"] == "train"]
    assert progress.update == len(made) < 100_000
    top = max(record["lr"] for record in made)
    assert made[-1]["lr"] < max(0.01, 5 / len(made)) * top
