"""The memory that micro-batches take, measured on the model itself.

The closed form of `mlxsched.planning.memory_model` knows dense Llama-like models. It is off by a factor of 1.2 to 6 for
others: a gated delta net keeps a state for each token, a mixture of experts sorts its tokens. For those a micro-batch is
trained and thrown away, as the run would train it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from mlxsched.data.batching.batches import Batch
from mlxsched.data.batching.grid import Shape
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.trees import flatten
from mlxsched.training.optimizers import GroupedOptimizer
from mlxsched.training.step import UpdateStep

VOCABULARY = 100  # tokens that a batch is drawn from
_SHORTEST = 32
_GROWTH = 2.0, 4.0  # of the increments when a length doubles: what is linear in it, and attention scores


@dataclass
class PeakProbe:
    """Measures MLX's peak above the weights for updates of ``model`` along ``path``, with a new optimizer each time.

    ``target_share`` of the positions are targets. No measurement is expected to exceed ``limit`` bytes: sizes are
    doubled one after the other, and the last ones are extrapolated where that would.
    """

    model: Module
    make_optimizer: Callable[[], GroupedOptimizer]
    path: ForwardPath
    target_share: float
    limit: int
    _known: dict[Shape, int] = field(default_factory=dict)

    def peak(self, shape: Shape) -> int:
        """Bytes for micro-batches of ``shape``: first its length is doubled up to, then its rows."""
        rows, length = shape
        lengths = [length]
        while lengths[0] > _SHORTEST:
            lengths.insert(0, lengths[0] // 2)
        counts = [rows]
        while counts[0] > 1:
            counts.insert(0, counts[0] // 2)
        one_row = self._grown([], [(1, width) for width in lengths], _GROWTH)[-1]
        return self._grown([one_row], [(count, length) for count in counts[1:]], (2.0, 2.0))[-1]

    def _grown(self, peaks: list[int], shapes: list[Shape], growth: tuple[float, float]) -> list[int]:
        """``peaks``, and those of ``shapes``, of which each doubles the one before; what would not fit is extrapolated."""
        for shape in shapes:
            expected = _extrapolated(peaks, growth) if len(peaks) > 1 else 2 * sum(peaks)
            if shape in self._known:
                peaks.append(self._known[shape])
            elif expected > self.limit:
                peaks.append(expected)
            else:
                self._known[shape] = self._measured(shape)
                peaks.append(self._known[shape])
        return peaks

    def _measured(self, shape: Shape) -> int:
        """The peak of an update of two micro-batches: the second is laid out while the first computes."""
        parameters = self.model.trainable_parameters()
        batch = random_batch(shape, self.target_share, packed=self._packs(shape))

        def update() -> None:
            optimizer = self.make_optimizer()  # a used one holds placeholders of the graph that was traced
            packed = optimizer.pack(flatten(parameters))
            state = optimizer.init(packed)
            step = UpdateStep(
                self.model, optimizer, self.path.loss, max_grad_norm=1.0, compiled=self.path.compiled
            )
            sums = step.zeros(packed)
            for _ in range(2):
                sums = step.add(packed, sums, *self.path.arrays(batch, 2.0 * batch.n_targets))
                mx.async_eval(sums)
            mx.eval(step.apply(packed, state, sums, 0.0))

        try:
            return peak_of(update)
        finally:
            self.model.update(parameters)  # tracing left placeholders

    def _packs(self, shape: Shape) -> bool:
        return self.path.packing is not None and shape[1] == self.path.packing.width


def _extrapolated(peaks: list[int], growth: tuple[float, float]) -> int:
    """The next of ``peaks``, whose increments grow by a factor between those of ``growth``."""
    last = max(peaks[-1] - peaks[-2], 0)
    before = max(peaks[-2] - peaks[-3], 1) if len(peaks) > 2 else max(last, 1)
    factor = min(max(last / before, growth[0]), growth[1])
    return round(peaks[-1] + factor * last)


def peak_of(function: Callable[[], object]) -> int:
    """Bytes that MLX takes above what is in use now, while ``function`` runs."""
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    function()
    mx.synchronize()
    peak = mx.get_peak_memory() - before
    gc.collect()
    mx.clear_cache()
    return peak


def random_batch(
    shape: Shape, target_share: float, *, packed: bool = False, vocabulary: int = VOCABULARY
) -> Batch:
    """Tokens below 100, and below ``vocabulary``, at random, of which ``target_share`` are targets."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, min(vocabulary, VOCABULARY), (2, *shape)).astype(np.int32)
    count = max(round(target_share * shape[0] * shape[1]), 1)
    weights = np.zeros(shape[0] * shape[1], np.float32)
    weights[draw.permutation(len(weights))[:count]] = 1
    batch = Batch(tokens[0], tokens[1], weights.reshape(shape), np.arange(shape[0]), tokens[0].size, count)
    return replace(batch, segments=np.zeros(shape, np.int32)) if packed else batch
