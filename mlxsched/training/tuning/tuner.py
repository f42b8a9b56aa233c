"""Chooses the forward path of a run: from its record, from an earlier run on this device, or by timing candidates.

A choice affects speed and memory, but results only by rounding. The choice is part of the run's record, and a resume
reads it from there, so that the resumed run is bit-identical to an uninterrupted one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from mlxsched.data.batching.plan import batching_stats
from mlxsched.errors import RunError
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.selection import Note
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.platform.blas import use_threads
from mlxsched.training.gpu_timeout import is_gpu_timeout
from mlxsched.training.session import Session
from mlxsched.training.shape_times import Stopwatch
from mlxsched.training.tuning.measurement import Measurement, operations_of
from mlxsched.training.tuning.result import BATCHING, PACKED, PADDED, Tuning
from mlxsched.training.tuning.store import TuningStore

_LOG = logging.getLogger(__name__)

MOST, SHARE = 2.0, 0.01  # seconds, and share of the run, that timing may take
SHORT = 3e11  # operations: a run of fewer takes less than half a minute


class Tuner:
    """Chooses for the run of ``session``.

    Args:
        recorded: the choice that the run made at its start; None to choose now.
        most: seconds that timing may take.
        share: the limit as a share of the run's own time; 0 for no such limit.
        fresh: ignore stored choices.
    """

    def __init__(
        self,
        session: Session,
        recorded: Mapping[str, object] | None = None,
        *,
        most: float = MOST,
        share: float = SHARE,
        fresh: bool = False,
    ) -> None:
        self._session, self._share, self._fresh = session, share, fresh
        self._watch = Stopwatch(time.perf_counter, most)
        self._measurement: Measurement | None = None
        self._store: TuningStore | None = None
        self._recorded = recorded
        self.result = Tuning.from_dict(recorded or {})

    def path(self, check: SelfCheck, path: ForwardPath, note: Note) -> ForwardPath:
        """The fastest path that agrees with the plain one; ``path`` is the default, which agrees."""
        if self._recorded is None:
            self._decide(check, path)
        if self.result.threads:
            use_threads(self.result.threads)
        chosen = self.result.applied_to(path)
        reason = check.disagreement(chosen) if chosen != path and self._measurement is None else None
        if reason is not None:
            note(f"the choice of an earlier start is not used: {reason}")
            return path
        for case in self.result.cases:
            if case.is_change:
                note(f"timed on this device: {case.kind} {case.name} is {case.gain:.2f} times as fast")
        return chosen

    def batching(self, padded: ForwardPath, packed: ForwardPath) -> ForwardPath:
        """``packed``, which was predicted to be faster, unless ``padded`` was measured to be."""
        if self._measurement is not None and packed.packing and self._session.config.packing is None:
            try:
                self._measurement.batching(padded, packed)
            except Exception as error:  # noqa: BLE001  as in `_measure`; the other choices stay
                _refuse_gpu_timeout(error)
                _LOG.debug("tuning", exc_info=True)
                self._measurement.skip(BATCHING, [PACKED, PADDED])
        return padded if self.result.chosen.get(BATCHING) == PADDED else packed

    def record(self) -> dict[str, object]:
        """The run's record of the choice; if complete, it is also stored for later runs."""
        if self._recorded is not None:
            return dict(self._recorded)
        if self._measurement is not None:
            self.result.seconds = round(self._watch.spent, 3)
        record = self.result.to_dict()
        if self._store is not None and self._measurement is not None and self.result.is_complete:
            self._store.save(self._session.loaded.name, record)
        return record

    def _decide(self, check: SelfCheck, path: ForwardPath) -> None:
        """Choose from the cache, or by timing if that is worthwhile."""
        session = self._session
        short = session.config.max_time is None and operations_of(session.plan) < SHORT
        if not session.world.alone:
            self.result.note = "not timed: several workers train"
        elif self._share and short:
            self.result.note = "not timed: the run is too short"
        else:
            known = None
            if session.cache is not None:
                shapes = batching_stats(session.batching, session.sampler).shapes
                self._store = TuningStore.of(session.cache, session, path, shapes)
                known = None if self._fresh else self._store.load()
            if known is not None:
                self.result = Tuning.from_dict(known)
                self.result.note = "known from an earlier run on this device"
                return
            self._measure(check, path)

    def _measure(self, check: SelfCheck, path: ForwardPath) -> None:
        try:
            self._measurement = Measurement(self._session, check, self._watch, self._share)
            self._measurement.path(path)
            self.result = self._measurement.result
        except Exception as error:  # noqa: BLE001  a model may be too unusual to be timed in parts; it can still be trained
            _refuse_gpu_timeout(error)
            _LOG.debug("tuning", exc_info=True)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            self._measurement, self.result = None, Tuning(note=f"not timed: a candidate failed ({reason})")


def _refuse_gpu_timeout(error: Exception) -> None:
    """Raise if ``error`` is a GPU timeout, after which the GPU may refuse all work of this process."""
    if is_gpu_timeout(error):
        raise RunError(
            "macOS ended the timing of an optimization, because it kept the GPU busy for too long: "
            f"{str(error)[:200]}\nTrain with --no-tune, which skips the timing."
        ) from error
