"""Reports what is wrong with a run as soon as it is certain."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from mlxsched.analysis.diagnosis.histories import run_history
from mlxsched.analysis.diagnosis.live import certain
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.events import Notice
from mlxsched.runs.recording import Recording, read_recording
from mlxsched.training.pace import Pace
from mlxsched.training.policies.base import Action, Policy, Report
from mlxsched.training.progress import Progress

_LOG = logging.getLogger(__name__)


class Verdict(Policy):
    """Report each finding about ``run`` once, at the evaluation at which it is certain.

    The findings come from the recorded metrics, which are complete in a resumed run as well. This takes milliseconds
    (benchmarks/live_diagnosis.py). The last evaluation is left to the verdict at the end.
    """

    def __init__(self, run: RunDirectory, pace: Pace) -> None:
        self._run, self._pace = run, pace
        self._recording: Recording | None = None
        self._works = True

    def after_evaluation(self, progress: Progress, loss: float) -> Iterable[Action]:
        update = progress.update
        if not (self._works and 0 < update < self._pace.updates):
            return []
        try:
            return list(self._new_findings(update))
        except Exception:  # noqa: BLE001 neither a damaged record nor a mistake in a detector is worth the hours of a run
            _LOG.debug("live verdict", exc_info=True)
            self._works = False
            return []

    def _new_findings(self, update: int) -> Iterator[Action]:
        known = self._recording
        recording = self._recording = known.follow() if known else read_recording(self._run.path)
        said = {notice.code for notice in recording.notices}
        for finding in certain(run_history(self._run, recording, "running")):
            if finding.code not in said:
                yield Report(Notice(update, finding.code, f"{finding.evidence}. {finding.fix}"))
