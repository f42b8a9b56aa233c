"""One update on the device: gradients summed over micro-batches, then clipped, guarded, applied.

Both halves are pure functions, compiled once for each shape. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from mlxsched.model.fast.forward_path import Arrays
from mlxsched.model.fast.growing_cache import State
from mlxsched.model.fast.shared_prefix import SharedPasses
from mlxsched.model.trees import flatten, global_norm, n_bytes, unflatten
from mlxsched.training.optimizers import GroupedOptimizer, Packed
from mlxsched.training.optimizers import State as OptimizerState

Sums = tuple[mx.array, Packed]  # loss and gradients, so far


class StepResult(NamedTuple):
    """The results of an update; all are scalars on the device."""

    loss: mx.array
    grad_norm: mx.array
    applied: mx.array


class UpdateStep:
    """The compiled update of ``model``'s trainable tensors.

    ``loss(model, *arrays)`` is summed over micro-batches; give weights that add up to 1 over an update.
    ``max_grad_norm`` None or 0 leaves gradients as they are. ``passes``: how rows that share a prefix go through the model.
    """

    def __init__(
        self,
        model: Module,
        optimizer: GroupedOptimizer,
        loss: Callable[..., mx.array],
        *,
        passes: SharedPasses | None = None,
        max_grad_norm: float | None = None,
        random: bool = False,
        compiled: bool = True,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._loss = loss
        self._max_grad_norm = max_grad_norm
        # Dropout draws from the global state: capturing it keeps the draws fresh and resumable.
        captured: dict[str, Any] = {"inputs": mx.random.state, "outputs": mx.random.state} if random else {}
        self._add: Any = mx.compile(self._add_gradients, **captured) if compiled else self._add_gradients
        self._passes = passes
        shared = (self._read, self._add_behind, self._add_prefix)
        functions: list[Any] = [mx.compile(f) if compiled else f for f in shared]
        self._begin, self._continue, self._end = functions
        updates = (self._guarded_update, self._check, self._checked_update)
        functions = [mx.compile(f) if compiled else f for f in updates]
        self._apply, self._before, self._after = functions

    def zeros(self, packed: Packed) -> Sums:
        """The sums before the first micro-batch of an update: loss and gradients.

        They are float32, whatever the parameters are: 512 bf16 gradients summed in bf16 lose 2.3%.
        """
        return mx.array(0.0), tree_map(lambda value: mx.zeros(value.shape, mx.float32), packed)

    def add(self, packed: Packed, sums: Sums, *arrays: Any) -> Sums:
        """Add the loss and gradients of a micro-batch, given as the loss function's arrays, to ``sums``."""
        total: Sums = self._add(packed, sums, *map(mx.array, arrays))
        return total

    def add_group(self, packed: Packed, sums: Sums, prefix: Arrays, parts: list[Arrays]) -> Sums:
        """Add the loss and gradients of rows that continue a shared ``prefix``, in micro-batches ``parts``, to
        ``sums``."""
        state, resumed = self._begin(packed, *prefix)
        mx.async_eval(state, resumed)  # on Metal, long command buffers are at risk (`gpu_timeout`)
        assert self._passes is not None  # noqa: S101  there are groups only on a path for them
        trained = self._passes.trained(state)
        to_state: State = [mx.zeros(array.shape) for array in trained]  # float32, for the reason in `zeros`
        for arrays in parts:
            sums, to_state = self._continue(packed, sums, to_state, state, prefix[0], *arrays)
            mx.async_eval(sums, to_state)
        total: Sums = self._end(packed, sums, to_state, resumed, *prefix)
        return total

    @staticmethod
    def unscaled(sums: Sums, scale: float) -> Sums:
        """``sums`` divided by ``scale``, a power of two (`ForwardPath.loss_scale`)."""
        return sums if scale == 1.0 else (sums[0] / scale, tree_map(lambda value: value / scale, sums[1]))

    def apply(
        self, packed: Packed, state: OptimizerState, sums: Sums, rate: float
    ) -> tuple[Packed, OptimizerState, StepResult]:
        """Make the update at ``rate``; parameters and state stay as they are if a number is not finite."""
        loss, gradients = sums
        array = mx.array(rate, mx.float32)
        if not self._optimizer.in_place:
            packed, state, norm, applied = self._apply(packed, state, gradients, loss, array)
        else:
            # The check precedes the update, so that each new tensor can replace the old one as soon as it is computed.
            # In a single function, all new tensors would have to exist before the first old one can be freed.
            norm, applied = self._before(packed, state, gradients, loss, array)
            packed, state = self._after(packed, state, gradients, (norm, applied), array)
        return packed, state, StepResult(loss, norm, applied)

    def load(self, packed: Packed) -> None:
        """Put ``packed`` into the module: tracing leaves placeholders there, so do it before any other use."""
        self._model.update(self._tree(packed))

    def _add_gradients(self, packed: Packed, sums: Sums, *arrays: mx.array) -> Sums:
        def loss_of(tree: Any) -> mx.array:
            self._model.update(tree)
            return self._loss(self._model, *arrays)

        loss, gradients = mx.value_and_grad(loss_of)(self._tree(packed))
        return self._added(sums, loss, gradients)

    def _tree(self, packed: Packed) -> Any:
        return unflatten(self._optimizer.unpack(packed))

    def _added(self, sums: Sums, loss: mx.array, gradients: Any) -> Sums:
        return sums[0] + loss, tree_map(mx.add, sums[1], self._optimizer.pack(flatten(gradients)))

    def _read(self, packed: Packed, *prefix: mx.array) -> tuple[State, list[mx.array]]:
        assert self._passes is not None  # noqa: S101  there are groups only on a path for them
        return self._passes.read(self._tree(packed), *prefix)

    def _add_behind(
        self, packed: Packed, sums: Sums, to_state: State, state: State, prefix: mx.array, *arrays: mx.array
    ) -> tuple[Sums, State]:
        assert self._passes is not None  # noqa: S101
        loss, (gradients, more) = self._passes.continue_from(self._tree(packed), state, prefix, *arrays)
        return self._added(sums, loss, gradients), tree_map(mx.add, to_state, more)

    def _add_prefix(
        self, packed: Packed, sums: Sums, to_state: State, resumed: list[mx.array], *prefix: mx.array
    ) -> Sums:
        assert self._passes is not None  # noqa: S101
        return self._added(sums, *self._passes.go_back(self._tree(packed), to_state, resumed, *prefix))

    def _guarded_update(
        self, packed: Packed, state: OptimizerState, gradients: Packed, loss: mx.array, rate: mx.array
    ) -> tuple[Packed, OptimizerState, mx.array, mx.array]:
        norm = global_norm(gradients)
        new = self._new(packed, state, gradients, norm, rate)
        applied = _all_finite(norm, loss, new[0])
        return *_kept(applied, new, (packed, state)), norm, applied

    def _check(
        self, packed: Packed, state: OptimizerState, gradients: Packed, loss: mx.array, rate: mx.array
    ) -> tuple[mx.array, mx.array]:
        norm = global_norm(gradients)
        new_packed, _ = self._new(packed, state, gradients, norm, rate)
        return norm, _all_finite(norm, loss, new_packed)

    def _checked_update(
        self,
        packed: Packed,
        state: OptimizerState,
        gradients: Packed,
        checked: tuple[mx.array, mx.array],
        rate: mx.array,
    ) -> tuple[Packed, OptimizerState]:
        norm, applied = checked
        return _kept(applied, self._new(packed, state, gradients, norm, rate), (packed, state))

    def _new(
        self, packed: Packed, state: OptimizerState, gradients: Packed, norm: mx.array, rate: mx.array
    ) -> tuple[Packed, OptimizerState]:
        return self._optimizer.apply(packed, state, clip(gradients, norm, self._max_grad_norm), rate)


def _all_finite(norm: mx.array, loss: mx.array, new_packed: Packed) -> mx.array:
    # A finite sum of squares means that every term is finite: one test for all gradients, and one for what would be
    # stored, which a rate that is too high can ruin by itself.
    return mx.isfinite(norm) & mx.isfinite(loss) & mx.isfinite(global_norm(new_packed))


def _kept(
    applied: mx.array, new: tuple[Packed, OptimizerState], old: tuple[Packed, OptimizerState]
) -> tuple[Packed, OptimizerState]:
    """``new`` if the update is applied, else ``old``."""
    kept: tuple[Packed, OptimizerState] = tree_map(lambda new, old: mx.where(applied, new, old), new, old)
    return kept


def clip(gradients: Any, norm: mx.array, max_norm: float | None) -> Any:
    """``gradients`` scaled so that their norm is at most ``max_norm`` (Pascanu et al., 2013); as they are without one."""
    if not max_norm:
        return gradients
    factor = mx.minimum(1.0, max_norm / (norm + 1e-6))
    return tree_map(lambda g: g * factor.astype(g.dtype), gradients)


def portions(parameters: Packed, state: OptimizerState) -> Iterator[list[mx.array]]:
    """All arrays, a sixteenth of their bytes at a time, each tensor together with its moments."""
    tensors: dict[str, list[mx.array]] = {}
    for group, values in parameters.items():
        for path, value in values.items():
            tensors[f"{group} {path}"] = [value, *flatten(state[group].get(path, {})).values()]
    most, portion = n_bytes(list(tensors.values())) / 16, list[mx.array]()
    for arrays in tensors.values():
        portion += arrays
        if n_bytes(portion) >= most:
            yield portion
            portion = []
    yield portion
