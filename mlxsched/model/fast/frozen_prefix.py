"""The frozen lower layers: the first trained layer receives the same input for a row in every epoch.

With LoRA on the upper half of the layers, running the lower half is about a third of a step. From the second epoch on
its output can come from storage instead (`PrefixActivations`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

from mlxsched.model.fast.attention import Blocks, in_blocks
from mlxsched.model.fast.checkpointing import distinct, dropout_rate
from mlxsched.model.fast.patching import NotApplicable, replaced
from mlxsched.model.trees import flatten


class NothingFrozen(NotApplicable):
    """The first layer is trained."""


class _Reached(Exception):
    """Carries the boundary's input out of a forward pass, which need not go any further."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class PrefixBoundary:
    """Where the frozen layers end: the first trained ``layer``, and its input ``[rows, length, width]`` of ``dtype``.

    ``below`` layers are frozen. ``blocks``: how their attention is cut.
    """

    layer: Module
    below: int
    width: int
    dtype: mx.Dtype
    blocks: Blocks | None = None


def find_boundary(model: Module, inputs: mx.array) -> PrefixBoundary:
    """The boundary of ``model``, tried out on ``inputs`` ``[rows, length]``.

    Raises ``NotApplicable`` where no layer below the first trained one is frozen, or its input differs from one
    epoch to the next.
    """
    layers = distinct(model.layers)
    trained = [_n_trainable(layer) > 0 for layer in layers]
    below = trained.index(True) if True in trained else 0
    if below == 0:
        raise NothingFrozen
    _refuse_what_varies(model, layers[below:])
    received = _input_of(layers[below], model, inputs)
    if received.shape[:-1] != inputs.shape:
        raise NotApplicable("its layers pass on more than one hidden state for each token")
    return PrefixBoundary(layers[below], below, received.shape[-1], received.dtype)


def _refuse_what_varies(model: Module, upper: list[Module]) -> None:
    if _n_trainable(model) > sum(map(_n_trainable, upper)):
        raise NotApplicable("something outside of its layers is trained")
    above = {id(module) for layer in upper for module in layer.modules()}
    for module in model.modules():
        if id(module) not in above and isinstance(module, nn.Dropout) and dropout_rate(module) > 0:
            raise NotApplicable("there is dropout in its frozen layers")


def _n_trainable(module: Module) -> int:
    return len(flatten(module.trainable_parameters()))


def boundary_input(model: Module, boundary: PrefixBoundary, inputs: mx.array) -> mx.array:
    """What the boundary's layer receives when ``model`` reads ``inputs``; no later layer is run."""
    with in_blocks(boundary.blocks):
        return _input_of(boundary.layer, model, inputs)


def _input_of(layer: Module, model: Module, inputs: mx.array) -> mx.array:

    def reached(_original: Any, *args: Any, **kwargs: Any) -> Any:
        raise _Reached(args[0] if args else next(iter(kwargs.values()), None))

    with replaced(layer, "__call__", reached):
        try:
            model(inputs)
        except _Reached as end:
            if isinstance(end.value, mx.array):
                return end.value
            raise NotApplicable("its layers pass on more than one array") from None
    raise NotApplicable("its layers are not called one by one")


@contextmanager
def input_recorded(boundary: PrefixBoundary | None) -> Iterator[list[mx.array]]:
    """Inside, the list gets what the boundary's layer receives; it stays empty without a boundary."""
    received: list[mx.array] = []

    def record(original: Any, *args: Any, **kwargs: Any) -> Any:
        received.append(args[0] if args else next(iter(kwargs.values())))
        return original(*args, **kwargs)

    with replaced(boundary.layer, "__call__", record) if boundary else nullcontext():
        yield received


@contextmanager
def prefix_replaced(boundary: PrefixBoundary, activations: mx.array) -> Iterator[None]:
    """Inside, the boundary's layer receives ``activations``, and what computes its real input is dead code."""
    calls = []

    def resumed(original: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if args:
            return original(activations, *args[1:], **kwargs)
        return original(**{**kwargs, next(iter(kwargs)): activations})

    with replaced(boundary.layer, "__call__", resumed):
        yield
    if len(calls) != 1:
        raise NotApplicable(f"its first trained layer is called {len(calls)} times in a forward pass")
