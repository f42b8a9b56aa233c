"""Compares forward paths with the plain one on the user's own rows, before a run takes any of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_map
from numpy.typing import NDArray

from mlxsched.data.batching.batches import Batch, Places, places_of
from mlxsched.data.batching.packing import Packing
from mlxsched.data.rows import Rows
from mlxsched.model.fast.attention import FEWEST
from mlxsched.model.fast.forward_path import Arrays, ForwardPath
from mlxsched.model.fast.frozen_prefix import PrefixBoundary, boundary_input
from mlxsched.model.fast.patching import NotApplicable, dropout_off
from mlxsched.model.fast.prefix_activations import lay_out_activations
from mlxsched.model.fast.samples import packed_sample, sample_batch
from mlxsched.model.loss import PLAIN_LOSS, LossOptions
from mlxsched.model.trees import Tensors, flatten, global_norm, unflatten
from mlxsched.platform.precision import multiplies_in_tf32

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tolerance:
    """Largest relative difference of the loss, and of the gradients' Euclidean norm."""

    loss: float
    gradients: float


EXACT = Tolerance(1e-5, 1e-4)
# Float32 weights, but products that round their inputs to 11 bits. On an H200, correct paths differed by up to 5e-5 and 8e-4
# (`benchmarks/precision_of_products.py`); users report errors of products that are 2.6 times as large from an M5.
ROUNDED = Tolerance(5e-4, 1e-2)
HALF = Tolerance(5e-3, 5e-2)  # half precision keeps 8 to 11 bits, so the order of a sum shows


class _Sample(NamedTuple):
    """The same rows twice: as the plain path reads them, in one or more batches, and as the other paths do."""

    plain: list[Batch]
    batch: Batch


class SelfCheck:
    """Compares forward paths through ``model`` with the plain path on a few of ``rows``.

    With ``packing`` there is a second sample, which the paths read as packed lines. ``gradients`` False compares
    losses only, for rows that are only evaluated.
    """

    def __init__(
        self,
        model: Module,
        rows: Rows,
        options: LossOptions = PLAIN_LOSS,
        *,
        gradients: bool = True,
        packing: Packing | None = None,
    ) -> None:
        self.model, self.options, self._gradients = model, options, gradients
        vocabulary = _vocabulary(model)
        first = self._sample_of(rows, vocabulary)
        self._samples = [_Sample([first], first)]
        if packing is not None:
            self._samples.append(_Sample(*packed_sample(rows, packing, vocabulary)))
        self.inputs = mx.array(first.inputs)
        self._parameters = flatten(model.trainable_parameters())
        self._perturbed = unflatten(_perturbed(self._parameters))
        self._n_targets = float(sum(sample.batch.n_targets for sample in self._samples))
        plain = ForwardPath(options=options)
        batches = [batch for sample in self._samples for batch in sample.plain]
        self.expected = self._run(plain, [plain.arrays(batch, self._n_targets) for batch in batches])
        self.tolerance = self._tolerance()

    def disagreement(self, path: ForwardPath) -> str | None:
        """Why ``path`` can't be used, in words for the user; None if it agrees with the plain path."""
        try:
            path = self._with_small_parts(path)
            return self._difference(*self._computed(path))
        except NotApplicable as reason:
            return str(reason)
        except Exception:  # noqa: BLE001 a model may do anything with patched modules; the plain path still works
            _LOG.debug("forward path %s", path, exc_info=True)
            return "this model does not support it"

    def _sample_of(self, rows: Rows, vocabulary: int) -> Batch:
        return sample_batch(rows, vocabulary)

    def _computed(self, path: ForwardPath) -> tuple[float, Tensors]:
        """Loss and gradients along ``path``."""
        return self._run(path, self._arrays(path))

    def _with_small_parts(self, path: ForwardPath) -> ForwardPath:
        """``path`` with chunks and blocks so small that the few tokens of a sample need several."""
        if path.chunk:
            fewest = min(sample.batch.n_targets for sample in self._samples)
            path = replace(path, chunk=max(fewest // 2, 1))
        if path.blocks:
            least = min(sample.batch.shape[1] for sample in self._samples) // 3
            path = replace(path, blocks=replace(path.blocks, least=max(least, FEWEST)))
        return path

    def _run(self, path: ForwardPath, batches: list[Arrays]) -> tuple[float, Tensors]:
        """Loss and gradients summed over ``batches``, as a training step computes them."""
        path = path if self._gradients else path.without_gradients()

        def loss_of(tree: Any, *arrays: mx.array) -> mx.array:
            self.model.update(tree)
            return path.loss(self.model, *arrays)

        function: Any = mx.value_and_grad(loss_of) if self._gradients else lambda *a: (loss_of(*a), {})
        function = mx.compile(function) if path.compiled else function
        with dropout_off(self.model):
            try:
                value, gradients = function(self._perturbed, *batches[0])
                for arrays in batches[1:]:
                    mx.eval(value, gradients)
                    more = function(self._perturbed, *arrays)
                    value, gradients = value + more[0], tree_map(mx.add, gradients, more[1])
                mx.eval(value, gradients)
            finally:
                self.model.update(unflatten(self._parameters))  # tracing left placeholders
        return value.item(), flatten(gradients)

    def _difference(self, loss: float, gradients: Tensors) -> str | None:
        expected_loss, expected = self.expected
        off = abs(loss - expected_loss) / max(abs(expected_loss), 1e-30)
        if not off <= self.tolerance.loss:  # also where it is NaN
            return f"its loss differs by {off:.1e} from the model's own"
        off = relative_distance(gradients, expected)
        if not off <= self.tolerance.gradients:
            return f"its gradients differ by {off:.1e} from the model's own"
        return None

    def _arrays(self, path: ForwardPath) -> list[Arrays]:
        found = []
        for sample in self._samples:
            activations = None
            if path.frozen_boundary is not None:
                activations = _SampleActivations(self.model, path.frozen_boundary, sample.plain)
            found.append(replace(path, activations=activations).arrays(sample.batch, self._n_targets))
        return found

    def _tolerance(self) -> Tolerance:
        with dropout_off(self.model):
            if self.model(self.inputs[:1, :2]).dtype != mx.float32:
                return HALF
        return ROUNDED if multiplies_in_tf32() else EXACT


class _SampleActivations:
    """The activations at ``boundary`` of the rows of ``batches``, as `PrefixActivations` would hand them out."""

    def __init__(self, model: Module, boundary: PrefixBoundary, batches: list[Batch]) -> None:
        self._dtype = boundary.dtype
        self._of_row: dict[int, NDArray[Any]] = {}
        for batch in batches:
            values = np.array(boundary_input(model, boundary, mx.array(batch.inputs)).astype(mx.float32))
            for line, index in enumerate(batch.indices):  # lines of padding come last
                end = int(np.flatnonzero(batch.weights[line])[-1]) + 1
                self._of_row[int(index)] = values[line, :end]

    def batch(self, indices: NDArray[np.int64], shape: tuple[int, int], places: Places | None) -> mx.array:
        rows = [self._of_row[int(index)] for index in indices]
        return mx.array(lay_out_activations(rows, shape, places_of(indices, places))).astype(self._dtype)


def _vocabulary(model: Any) -> int:
    with dropout_off(model):
        return int(model(mx.zeros((1, 2), mx.int32)).shape[-1])  # known without computing anything


def _perturbed(tensors: Tensors) -> Tensors:
    """The tensors, but random ones for those that are all 0: LoRA's B would hide every error in A's gradient."""
    key = mx.random.key(0)
    return {
        path: value if mx.any(value).item() else 0.01 * mx.random.normal(value.shape, value.dtype, key=key)
        for path, value in tensors.items()
    }


def relative_distance(got: Tensors, expected: Tensors) -> float:
    """The Euclidean norm of the difference, divided by that of ``expected``; infinite if the names differ."""
    if got.keys() != expected.keys():
        return float("inf")
    if not expected:
        return 0.0
    apart = global_norm({path: got[path].astype(mx.float32) - expected[path] for path in expected})
    distance: Any = apart / mx.maximum(global_norm(expected), 1e-30)
    return float(distance.item())
