"""The engine: the trainable parameters of a model, the optimizer state, and the update that moves them.

It writes nothing, prints nothing and knows no plan, so whatever trains can drive it: the training loop, a benchmark, a
rate finder, a grid of short trials.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple, TypedDict

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.model.evaluate import Evaluator, LossResult, OnProgress
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.shared_prefix import SharedPasses
from mlxsched.model.trees import Tensors, flatten, n_bytes, unflatten
from mlxsched.training.allocation_limit import limited_allocation
from mlxsched.training.batch_loader import UpdateBatches
from mlxsched.training.gpu_timeout import is_watched
from mlxsched.training.optimizers import GroupedOptimizer, Packed, State
from mlxsched.training.step import UpdateStep, portions

_SMALL = 10**8  # bytes of parameters and moments; the run needs the memory that a larger copy takes


class Snapshot(NamedTuple):
    """Everything that an update changes. MLX arrays are immutable, so a snapshot holds references and costs nothing."""

    parameters: Packed
    optimizer_state: State


class Outcome:
    """The result of an update, still being computed when it is made: reading a value waits for the device."""

    def __init__(self, loss: mx.array, grad_norm: mx.array, applied: mx.array) -> None:
        self._loss, self._grad_norm, self._applied = loss, grad_norm, applied

    def wait(self) -> None:
        """Wait for the device, so that the time until here is that of the update."""
        mx.eval(self._loss, self._grad_norm, self._applied)

    @cached_property
    def loss(self) -> float:
        """Mean loss over the targets of the update, before it."""
        return float(self._loss)

    @cached_property
    def grad_norm(self) -> float:
        """Euclidean norm of the gradient before clipping."""
        return float(self._grad_norm)

    @cached_property
    def applied(self) -> bool:
        """False if a value was not finite; parameters and optimizer state are then unchanged."""
        return bool(self._applied)


class EngineSettings(TypedDict):
    """The keyword arguments of `Engine`."""

    max_grad_norm: float | None
    dropout_seed: int | None
    room: int | None


class Engine:
    """Trains ``model`` along ``path``.

    Args:
        model: with its trainable parameters unfrozen, as `mlxsched.model.adapters.attach` leaves it.
        optimizer: made for these parameters by `mlxsched.training.optimizers.group_tensors`.
        path: the forward path of training micro-batches; its layout made the arrays that `update` takes.
        max_grad_norm: clip gradients to this norm; None or 0 leaves them unclipped.
        dropout_seed: seed of the dropout masks; None if the model has no dropout.
        room: bytes that updates may take, in addition to what is in memory now, before MLX waits for results; None for
            no limit.
    """

    def __init__(
        self,
        model: Module,
        optimizer: GroupedOptimizer,
        path: ForwardPath,
        *,
        max_grad_norm: float | None = None,
        dropout_seed: int | None = None,
        room: int | None = None,
    ) -> None:
        self.model, self.optimizer = model, optimizer
        self._path, self._dropout_seed = path, dropout_seed
        self._limit = None if room is None else mx.get_active_memory() + room
        self._step = UpdateStep(
            model,
            optimizer,
            path.loss,
            passes=SharedPasses(path, model) if path.form is not None else None,
            compiled=path.compiled,
            max_grad_norm=max_grad_norm,
            random=dropout_seed is not None,
        )
        self._parameters = optimizer.pack(flatten(model.trainable_parameters()))
        self._state = optimizer.init(self._parameters)
        self._before: tuple[int, Snapshot | None] = (-1, None)
        is_small = n_bytes([self._parameters, self._state]) <= _SMALL
        self._remembers = is_small and is_watched()  # other devices compute every update
        self._in_portions = optimizer.in_place and not is_small

    def update(self, batches: UpdateBatches, rate: float) -> Outcome:
        """Make one update at ``rate`` from the micro-batches of ``batches``.

        Returns before the device is done, so that the caller can prepare the next update in the meantime.
        """
        self._remember(batches.update)
        return self._apply(self._sums(batches), rate)

    def undo(self, update: int) -> bool:
        """Restore the state before update number ``update``, which the device failed to compute; returns whether it
        could.

        Only a small state is kept, and only on a Metal GPU, where macOS may abort work.
        """
        made, before = self._before
        if made == update and before is not None:
            self._parameters, self._state = before
        return made != update or before is not None

    def loss(self, batches: UpdateBatches) -> float:
        """The training loss of the present parameters on ``batches``, without an update.

        Takes the time of an update: the graph that is compiled already computes the gradient as well.
        """
        return float(self._sums(batches)[0])

    def evaluate(self, evaluator: Evaluator, on_progress: OnProgress | None = None) -> LossResult:
        """The loss of the present parameters on the rows of ``evaluator``."""
        return evaluator(self.tree(), on_progress)

    def tensors(self) -> Tensors:
        """The trainable parameters by path."""
        return self.optimizer.unpack(self._parameters)

    def tree(self) -> Any:
        """The trainable parameters as a tree like that of ``model.trainable_parameters()``."""
        return unflatten(self.tensors())

    def load_into_model(self) -> Module:
        """The model with the present parameters in it: tracing leaves placeholders, so ask before any other use."""
        self._step.load(self._parameters)
        return self.model

    def snapshot(self) -> Snapshot:
        """The present parameters and optimizer state; later updates don't change it."""
        return Snapshot(self._parameters, self._state)

    def restore(self, snapshot: Snapshot) -> None:
        """Continue from ``snapshot``."""
        self._parameters, self._state = snapshot

    def _remember(self, update: int) -> None:
        """Keep the state before ``update``, for `undo`."""
        self._before = update, self.snapshot() if self._remembers else None

    def _apply(self, sums: tuple[mx.array, Packed], rate: float) -> Outcome:
        with limited_allocation(self._limit):
            self._parameters, self._state, outcome = self._step.apply(
                self._parameters, self._state, sums, rate
            )
            del sums  # each gradient is free once its tensor is updated
            if self._in_portions:
                mx.eval(outcome)
                for part in portions(self._parameters, self._state):
                    mx.eval(part)  # waits, because MLX allocates what it computes later at once
            mx.async_eval(self._parameters, self._state, outcome)
        return Outcome(*outcome)

    def _sums(self, batches: UpdateBatches) -> tuple[mx.array, Packed]:
        """Loss and gradients, summed over the micro-batches of an update."""
        if self._dropout_seed is not None:
            # Dropout draws as a function of seed and update, so a resumed run needs no saved random state.
            mx.random.seed((self._dropout_seed << 32) + batches.update)
        sums = self._step.zeros(self._parameters)
        with limited_allocation(self._limit):
            for group in batches.groups:
                sums = self._step.add_group(self._parameters, sums, group.prefix, group.arrays)
                mx.async_eval(sums)
            for arrays in batches.arrays:
                sums = self._step.add(self._parameters, sums, *arrays)
                mx.async_eval(sums)
        return self._step.unscaled(sums, self._path.loss_scale(batches.n_targets))
