"""The frozen lower layers: what the first trained layer gets is the same in each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
    """Carries the value out of a forward pass that has got far enough."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass(frozen=True)
class PrefixBoundary:
    """Where the frozen layers end: the first trained layer, the width and the type of what it gets.

    ``blocks``: how the frozen layers' attention is cut.
    """

    layer: Module
    below: int
    width: int
    dtype: mx.Dtype
    blocks: Blocks | None = None


def find_boundary(model: Module, inputs: mx.array) -> PrefixBoundary:
    """The boundary of ``model``, tried out on ``inputs`` ``[rows, length]``.

    Raises ``NotApplicable`` where there is nothing frozen below the first trained layer, or it is not the same
    each time.
    """
    layers = distinct(model.layers)
    trained = [_n_trainable(layer) > 0 for layer in layers]
    below = trained.index(True) if True in trained else 0
    if below == 0:
        raise NothingFrozen
    _refuse_what_varies(model, layers[below:])
    states = _input_of(layers[below], model, inputs)
    if states.shape[:-1] != inputs.shape:
        raise NotApplicable(f"what its layers hand on has the shape {states.shape}")
    return PrefixBoundary(layers[below], below, states.shape[-1], states.dtype)


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
    """What the tapped layer gets when ``model`` reads ``inputs``; nothing behind that is run."""
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
            raise NotApplicable("its layers hand on more than one array") from None
    raise NotApplicable("its layers are not called one by one")


@contextmanager
def prefix_replaced(boundary: PrefixBoundary, states: mx.array) -> Iterator[None]:
    """Inside, the tapped layer gets ``states``, and what computes its real input is dead code."""
    calls = []

    def resumed(original: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if args:
            return original(states, *args[1:], **kwargs)
        return original(**{**kwargs, next(iter(kwargs)): states})

    with replaced(boundary.layer, "__call__", resumed):
        yield
    if len(calls) != 1:
        raise NotApplicable(f"its first trained layer is called {len(calls)} times in a forward pass")
