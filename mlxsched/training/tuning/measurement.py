"""Times candidates on the shapes of a planned run.

Attention and cross-entropy are timed separately, since a whole step of a large model would exceed the time limit. Whole
steps are timed for models with short steps; these are also the models for which compilation, packing and threads
matter.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import mlx.core as mx

from mlxsched.data.batching.batches import Batch
from mlxsched.data.batching.grid import Shape
from mlxsched.data.batching.plan import BatchingStats, batching_stats, padded_plan
from mlxsched.model.fast.candidates import AttentionPart, DeltaPart, LossPart, Piece, StepPart
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.gated_delta import deltas_of
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.load import planned_threads
from mlxsched.planning.plan import Plan
from mlxsched.platform.blas import thread_setter
from mlxsched.platform.machine import cores, matmul_gflops
from mlxsched.text import megabytes
from mlxsched.training.batch_loader import BatchLoader
from mlxsched.training.peak_probe import VOCABULARY, peak_of, random_batch
from mlxsched.training.session import Session
from mlxsched.training.shape_times import Stopwatch
from mlxsched.training.tuning.contest import FEWEST, Contest, contest
from mlxsched.training.tuning.result import BATCHING, PACKED, PADDED, PATHS, THREADS, Case, Tuning

LEAST = 0.25  # seconds: less is too noisy to compare anything
UPDATES = 4  # the maximum number in which padded and packed are compared: a single one may be unusual
HEAVY_CPU, HEAVY_GPU = 1e10, 3e11  # parameters times positions of a micro-batch that takes about a second


def operations_of(plan: Plan) -> float:
    """About 6 for each parameter and token (Kaplan et al., 2020)."""
    return 6.0 * plan.parameters * plan.tokens * plan.updates / plan.updates_per_epoch


class _Part(Protocol):
    def of(self, path: ForwardPath, shape: Shape) -> Piece: ...

    def needs(self, path: ForwardPath, shape: Shape) -> int: ...


class Measurement:
    """Chooses for the run of ``session`` within the time of ``watch``, at most ``share`` of the run's own (0: any)."""

    def __init__(self, session: Session, check: SelfCheck, watch: Stopwatch, share: float) -> None:
        self._session, self._check, self._watch, self._share = session, check, watch, share
        self._stats = batching_stats(session.batching, session.sampler)
        self._targets = session.train_rows.scored / session.plan.tokens * (1 - self._stats.padding)
        cpu = mx.default_device().type == mx.DeviceType.cpu
        # CPU time, so that other programs do not count; a GPU works while the CPU waits.
        self._clock: Callable[[], float] = time.process_time if cpu else time.perf_counter
        largest = max(map(math.prod, self._stats.shapes))
        self._second = (HEAVY_CPU if cpu else HEAVY_GPU) / session.plan.parameters  # positions
        self._heavy = largest > self._second
        self.result = Tuning()

    def path(self, path: ForwardPath) -> ForwardPath:
        """The fastest of the paths that compute the same as ``path``."""
        model = self._session.loaded.model
        attention, shapes = AttentionPart(model), self._stats.shapes
        step = StepPart(model, self._batch)
        self._watch.allowed = self._allowed(path, step)
        if self._watch.left < LEAST:
            self.result.note = "not timed: the run is too short"
            return path
        cut = self._watch.value_of(lambda: attention.cut(path, shapes))
        path = self._choose("attention", path, attention, cut, _scores)
        recurrent = shapes if self._watch.value_of(lambda: deltas_of(model, (1, 2))) else []
        path = self._choose("gated delta", path, DeltaPart(model), recurrent, math.prod)
        path = self._choose("cross-entropy", path, LossPart(model, self._targets), shapes, math.prod)
        if not self._heavy:
            path = self._choose("step", path, step, shapes, math.prod)
            self._choose_threads(step.of(path, _commonest(shapes, math.prod)))
        return path

    def batching(self, padded: ForwardPath, packed: ForwardPath) -> None:
        """Time some updates, padded and ``packed``."""
        if self._heavy or self.result.note:
            return
        if self._watch.left < LEAST:
            self.skip(BATCHING, [PACKED, PADDED])
            return
        session = self._session
        plans = {
            PACKED: (packed, session.batching),
            PADDED: (padded, padded_plan(session.own_sampler, session.micro_batch_tokens)),
        }
        calls = len(plans) * (FEWEST + 2)  # the first two of each compile it and find its repeats
        updates = some_updates(self._stats, self._second * self._watch.left / calls)
        pieces: dict[str, Piece] = {}
        for name, (path, plan) in plans.items():
            path = replace(path, boundary=None, activations=None)
            load = BatchLoader(session.train_rows, session.sampler, plan, path.arrays)
            arrays = [each for update in updates for each in load(update).arrays]
            pieces[name] = StepPart(session.loaded.model, self._batch).along(path, arrays)
        found = contest(pieces, self._watch, self._clock)
        self._record(BATCHING, found, found.ranking[0])

    def skip(self, kind: str, names: Sequence[str]) -> None:
        """Record that there was no time for ``kind``, so that the first of its ``names`` is used."""
        self._record(kind, Contest({name: [] for name in names}), names[0])

    def _allowed(self, path: ForwardPath, step: StepPart) -> float:
        """Seconds that all measurements together may take."""
        session, plan = self._session, self._session.plan
        if not self._share:
            return self._watch.allowed
        run = session.config.max_time
        if run is None and self._heavy:  # a lower bound
            run = operations_of(plan) / (1e9 * self._watch.value_of(lambda: matmul_gflops(seconds=0.05)))
        elif run is None:
            shape = min(self._stats.shapes, key=math.prod)
            piece = step.of(path, shape)
            self._watch.time(piece)
            steps = self._stats.positions / math.prod(shape) / self._stats.updates
            run = self._watch.time(piece) * steps * plan.updates
        return min(self._watch.allowed, self._share * run)

    def _batch(self, shape: Shape) -> Batch:
        vocabulary = int(self._session.loaded.config.get("vocab_size") or VOCABULARY)
        return random_batch(shape, self._targets, vocabulary=vocabulary)

    def _choose(
        self, kind: str, path: ForwardPath, part: _Part, shapes: list[Shape], work: Callable[[Shape], float]
    ) -> ForwardPath:
        """The fastest path of ``kind`` that fits into memory and agrees; timed on the shape with the largest total
        ``work``."""
        paths = PATHS[kind](path)
        if not paths or not shapes:
            return path
        if self._watch.left <= 0:
            self.skip(kind, list(paths))
            return path
        shape, largest = _commonest(shapes, work), max(shapes, key=work)
        room = self._session.memory.limit - self._session.memory.weights
        pieces = self._watch.value_of(
            lambda: {
                name: part.of(each, shape)
                for name, each in paths.items()
                if part.needs(each, largest) <= room or each == path
            }
        )
        found = contest(pieces, self._watch, self._clock)
        refused: dict[str, str] = {}
        for name in found.ranking[:-1]:
            tried = paths[name]
            reason = self._watch.value_of(partial(self._objection, kind, part, largest, path, tried))
            if reason is None:
                break
            refused[name] = reason
        else:
            name = found.default
        self._record(kind, found, name, refused)
        return paths[name]

    def _objection(
        self, kind: str, part: _Part, shape: Shape, default: ForwardPath, tried: ForwardPath
    ) -> str | None:
        """Why ``tried`` cannot be used; the difference in memory is measured at ``shape``, the largest one."""
        memory, layers = self._session.memory, self._session.trained_layers
        more = peak_of(part.of(tried, shape)) - peak_of(part.of(default, shape))
        # With recomputation, only one layer holds its scores at a time.
        more *= layers if kind in ("attention", "gated delta") and not default.checkpoint else 1
        if memory.peak + memory.cache + more > memory.limit:
            return f"it takes {megabytes(more)} more, which do not fit into memory"
        return self._check.disagreement(tried)

    def _choose_threads(self, piece: Piece) -> None:
        """One OpenBLAS thread or all, by wall-clock time, since CPU time counts waiting threads."""
        default, setter = planned_threads(self._session.loaded.config), thread_setter()
        if setter is None or cores() == 1:
            return
        counts = [default, cores() if default == 1 else 1]
        if self._watch.left <= 0:
            self.skip(THREADS, [str(count) for count in counts])
            return

        def with_threads(count: int) -> Piece:
            def run() -> None:
                setter(count)
                piece()

            return run

        chosen = str(default)
        try:
            found = contest({str(n): with_threads(n) for n in counts}, self._watch, time.perf_counter)
            chosen = found.ranking[0]
        finally:
            setter(int(chosen))
        self._record(THREADS, found, chosen)

    def _record(self, kind: str, found: Contest, chosen: str, refused: Mapping[str, str] = {}) -> None:
        """Add the candidates of ``kind`` to the result."""
        self.result.chosen[kind] = chosen
        for name, seconds in found.seconds.items():
            best, gain = (found.best(name), found.gain(name) or None) if seconds else (None, None)
            case = Case(kind, name, best, gain, name == chosen, refused.get(name, ""))
            self.result.cases.append(case)


def some_updates(stats: BatchingStats, positions: float) -> range:
    """Updates with about ``positions`` in total, spread over those of ``stats``: at least one, at most `UPDATES`."""
    count = int(min(max(positions * stats.updates / stats.positions, 1), UPDATES, stats.updates))
    return range(0, stats.updates - stats.updates % count, stats.updates // count)


def _commonest(shapes: list[Shape], work: Callable[[Shape], float]) -> Shape:
    """The shape that accounts for most of the ``work``."""
    counts = Counter(shapes)
    return max(counts, key=lambda shape: counts[shape] * work(shape))


def _scores(shape: Shape) -> float:
    return float(shape[0] * shape[1] ** 2)
