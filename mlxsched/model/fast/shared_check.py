"""Compares rows that continue from a shared prefix with the same whole rows on the plain path."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from mlxsched.data.batching.batches import Batch, collate, prefix_batch
from mlxsched.data.batching.grid import length_grid
from mlxsched.data.rows import Rows
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.frozen_prefix import find_boundary
from mlxsched.model.fast.growing_cache import Form, filled, form_of, growing_caches, with_caches
from mlxsched.model.fast.patching import NotApplicable, dropout_off
from mlxsched.model.fast.samples import shared_sample
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.fast.shared_prefix import SharedPasses, continued_loss, read_prefix
from mlxsched.model.loss import PLAIN_LOSS, LossOptions
from mlxsched.model.trees import Tensors, flatten, unflatten


class SharedCheck(SelfCheck):
    """Like `SelfCheck`, on rows built from ``rows`` so that they begin with the same tokens."""

    def __init__(
        self, model: Module, rows: Rows, options: LossOptions = PLAIN_LOSS, *, gradients: bool = True
    ) -> None:
        self._few: Rows | None = None
        super().__init__(model, rows, options, gradients=gradients)

    def _sample_of(self, rows: Rows, vocabulary: int) -> Batch:
        self._few, self._length = shared_sample(rows, vocabulary)
        everything = np.arange(len(self._few))
        return collate(self._few, everything, length_grid(self._few.lengths))

    def with_form(self, path: ForwardPath) -> ForwardPath:
        """``path`` for rows that share a prefix, without the optimizations that are incompatible with that."""
        inputs = self.inputs[:1, :2]
        form = form_of(self.model, inputs)
        path = replace(path, form=form, boundary=None, activations=None, packing=None)
        return _above_frozen_layers(path, self.model, form, inputs)

    def _computed(self, path: ForwardPath) -> tuple[float, Tensors]:
        assert self._few is not None  # noqa: S101  the sample is made first
        lengths = self._few.lengths - self._length
        halves = np.array_split(
            np.arange(len(self._few)), 2
        )  # two micro-batches, one of them without padding
        parts = [collate(self._few, half, length_grid(lengths[half]), self._length) for half in halves]
        prefix = path.arrays(
            prefix_batch(self._few, np.arange(len(self._few)), self._length), self._n_targets
        )
        arrays = [path.arrays(part, self._n_targets) for part in parts]
        compute = self._summed if self._gradients else self._summed_loss
        with dropout_off(self.model):
            try:
                value, gradients = compute(path, prefix, arrays)
                mx.eval(value, gradients)
            finally:
                self.model.update(unflatten(self._parameters))  # tracing left placeholders
        return float(value), flatten(gradients)

    def _summed(self, path: ForwardPath, prefix: Any, parts: list[Any]) -> tuple[mx.array, Any]:
        """Loss and gradients, as `UpdateStep` computes them."""
        passes, tree = SharedPasses(path, self.model), self._perturbed
        read, step, back = (_compiled(path, f) for f in (passes.read, passes.continue_from, passes.go_back))
        state, resumed = read(tree, *prefix)
        to_state = [mx.zeros(array.shape) for array in passes.trained(state)]
        total, sums = mx.array(0.0), None
        for arrays in parts:
            mx.eval(total, sums, to_state)
            loss, (gradients, more) = step(tree, state, prefix[0], *arrays)
            total, to_state = total + loss, tree_map(mx.add, to_state, more)
            sums = gradients if sums is None else tree_map(mx.add, sums, gradients)
        loss, gradients = back(tree, to_state, resumed, *prefix)
        return total + loss, tree_map(mx.add, sums, gradients)

    def _summed_loss(self, path: ForwardPath, prefix: Any, parts: list[Any]) -> tuple[mx.array, Any]:
        path = path.without_gradients()
        self.model.update(self._perturbed)
        loss, state = read_prefix(path, self.model, prefix)
        for arrays in parts:
            loss = loss + continued_loss(path, self.model, state, self._length, arrays)
        return loss, {}


def _above_frozen_layers(path: ForwardPath, model: Module, form: Form, inputs: mx.array) -> ForwardPath:
    """``path`` with a backward pass that ends at the first trained layer, if ``model`` allows it. What the caches hold when
    ``model`` reaches that layer depends on nothing trained; these must be the first arrays of a state of ``form``."""
    caches = growing_caches(model)
    try:
        with with_caches(model, caches):
            boundary = find_boundary(model, inputs)
    except NotApplicable:
        return path
    early, everything = (
        [(n, part) for n, parts in enumerate(f) for part in parts] for f in (filled(caches), form)
    )
    if early != everything[: len(early)]:
        return path
    return replace(path, fixed=len(early), resumed=boundary)


def _compiled(path: ForwardPath, function: Callable[..., Any]) -> Callable[..., Any]:
    compiled: Callable[..., Any] = mx.compile(function) if path.compiled else function
    return compiled
