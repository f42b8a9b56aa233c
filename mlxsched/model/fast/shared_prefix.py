"""Rows that begin with the same tokens: their prefix goes through the model once, and gradients flow back into it.

The prefix of P tokens goes through the model as a batch of one and leaves its *state* in caches: keys and values of
each layer, or the state of a recurrent layer. The rows' own tokens continue from that state, broadcast, and their
gradients with respect to it accumulate over all micro-batches. Then the prefix goes through the model once more, for
the backward pass with the accumulated gradient. An update thus takes 1.5 passes over the prefix instead of one per row.
No model code is changed.

The gradient is the plain path's: a state of one row that is broadcast to B rows gets the sum of their gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.model.fast.forward_path import Arrays, ForwardPath
from mlxsched.model.fast.frozen_prefix import input_recorded
from mlxsched.model.fast.growing_cache import State, growing_caches, resumed_caches, state_of


def read_prefix(path: ForwardPath, model: Module, prefix: Arrays) -> tuple[mx.array, State]:
    """The loss at the targets within ``prefix``, and the state after it.

    ``prefix`` is laid out by ``path.arrays`` like any micro-batch, with one row. A prefix without targets may be its inputs alone.
    """
    caches = growing_caches(model)
    loss = path.loss(model, *prefix, caches=caches)
    return loss, state_of(caches)


def continued_loss(path: ForwardPath, model: Module, state: State, length: int, arrays: Arrays) -> mx.array:
    """The loss of a micro-batch whose rows continue from ``state``, after ``length`` tokens."""
    assert path.form is not None  # noqa: S101  the caller has checked it
    caches = resumed_caches(model, path.form, state, length, arrays[0].shape[0])
    return path.loss(model, *arrays, caches=caches)


class SharedPasses:
    """The passes of an update, as functions of the trainable parameters ``tree``; each may be compiled."""

    def __init__(self, path: ForwardPath, model: Module) -> None:
        self._path, self._model = path, model

    def read(self, tree: Any, *prefix: mx.array) -> tuple[State, list[mx.array]]:
        """The state after ``prefix``, and the input of the first trained layer if there are frozen ones below.

        `go_back` returns the loss.
        """
        self._model.update(tree)
        with input_recorded(self._path.resumed) as resumed:
            _, state = read_prefix(self._path.without_gradients(), self._model, prefix)
        return state, resumed

    def continue_from(
        self, tree: Any, state: State, prefix: mx.array, *arrays: mx.array
    ) -> tuple[mx.array, tuple[Any, State]]:
        """The loss of a micro-batch that continues ``prefix`` ``[1, P]``, and its gradients with respect to ``tree``
        and the `trained` part of ``state``."""
        fixed = state[: self._path.fixed]

        def loss_of(tree: Any, trained: State) -> mx.array:
            self._model.update(tree)
            return continued_loss(self._path, self._model, fixed + trained, prefix.shape[1], arrays)

        found: tuple[mx.array, tuple[Any, State]] = mx.value_and_grad(loss_of, argnums=(0, 1))(
            tree, self.trained(state)
        )
        return found

    def trained(self, state: State) -> State:
        """The arrays of ``state`` that depend on what is trained. Gradients with respect to the others are of no use, and
        computing them would take a backward pass through the frozen layers."""
        return state[self._path.fixed :]

    def go_back(
        self, tree: Any, to_state: State, resumed: list[mx.array], *prefix: mx.array
    ) -> tuple[mx.array, Any]:
        """The loss within ``prefix``, and the gradient of that loss plus those of the rows behind the prefix, whose gradient
        with respect to the `trained` state is ``to_state``.

        The pass begins from ``resumed``, as `read` returned it, so frozen layers are not computed again.
        """
        path = replace(self._path, boundary=self._path.resumed)

        def dot(tree: Any) -> tuple[mx.array, mx.array]:
            self._model.update(tree)
            loss, state = read_prefix(path, self._model, (*prefix, *resumed))
            # Its gradient to the state is `to_state`, which is float32: summed in bf16, many rows would lose digits.
            products = [
                (a.astype(mx.float32) * b).sum() for a, b in zip(self.trained(state), to_state, strict=True)
            ]
            return loss + sum(products, mx.array(0.0)), loss

        (_, loss), gradients = mx.value_and_grad(dot)(tree)
        return loss, gradients
