"""What is wrong with a run, as soon as it is certain."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.live import certain
from mlxsched.errors import UserError
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.runs.recording import Recording, read_recording
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import Action, Policy, Report
from mlxsched.training.progress import Progress


class Verdict(Policy):
    """Report each finding about ``run`` once, at the evaluation at which it is certain.

    The records are read, not what this process has seen: those of a resumed run are complete. Judging them takes milliseconds
    (benchmarks/live_diagnosis.py). The last evaluation is left to the verdict at the end.
    """

    def __init__(self, run: RunDirectory, pace: Pace) -> None:
        self._run, self._pace = run, pace
        self._recording: Recording | None = None

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        update = progress.update
        if not 0 < update < self._pace.updates:
            return
        with suppress(UserError):  # a damaged record is no reason to end a run
            yield from self._new_findings(update)

    def _new_findings(self, update: int) -> Iterable[Action]:
        known = self._recording
        recording = self._recording = known.follow() if known else read_recording(self._run.path)
        said = {notice.code for notice in recording.notices}
        for finding in certain(run_history(self._run, recording, "running")):
            if finding.code not in said:
                yield Report(Notice(update, finding.code, f"{finding.evidence}. {finding.fix}"))
