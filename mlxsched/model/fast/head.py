"""The projection onto the vocabulary, applied only where there are targets.

Of a chat row, often 40% of the positions are targets, and with a vocabulary of 50,000 or more the logits outweigh
everything else: applying the head only at targets saves a third of the time and of the memory of a step.

The model's own scaling and soft-capping still act: they come after the projection and see fewer positions.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

from mlxsched.model.fast.patching import NotApplicable, dropout_off, replaced
from mlxsched.model.lora_keys import base_of, is_adapted
from mlxsched.model.trees import flatten

_EMBEDDINGS = (nn.Embedding, nn.QuantizedEmbedding)
_PROJECTIONS = (nn.Linear, nn.QuantizedLinear)


@dataclass(frozen=True)
class Head:
    """The module that makes the logits, and the method of it that does.

    ``bare``: the projection's output is the model's, with nothing done to it. ``frozen``: no parameter of the module
    is trained.
    """

    module: Module
    method: str
    vocabulary: int
    bare: bool
    frozen: bool


def find_head(model: Module, inputs: mx.array) -> Head:
    """The last vocabulary-wide projection of a forward pass over ``inputs`` ``[rows, length]``.

    Raises ``NotApplicable`` if the model has none that is a module of its own.
    """
    calls: list[tuple[Module, str, mx.array]] = []
    with dropout_off(model), ExitStack() as stack:
        vocabulary = model(inputs).shape[-1]
        for module, method in _candidates(model, vocabulary):
            stack.enter_context(replaced(module, method, _Recorder(module, method, calls)))
        logits = model(inputs)
    calls = [call for call in calls if call[2].shape[:2] == inputs.shape and call[2].shape[-1] >= vocabulary]
    if not calls:
        raise NotApplicable("its logits do not come from a projection module")
    # The last one: models with an input embedding as wide as the vocabulary call that first.
    module, method, output = calls[-1]
    bare = output.shape == logits.shape and bool(mx.array_equal(output, logits, equal_nan=True).item())
    frozen = not flatten(module.trainable_parameters())
    return Head(module, method, vocabulary, bare, frozen)


def _candidates(model: Module, vocabulary: int) -> list[tuple[Module, str]]:
    """Modules with a ``[vocabulary, hidden]`` weight, and the method that projects onto it.

    LoRA around a head is part of the head: the module inside it sees the same input, but its output lacks what LoRA
    adds.
    """
    adapted = [module for module in model.modules() if is_adapted(module)]
    inside = {id(base_of(module)) for module in adapted}
    found: list[tuple[Module, str]] = []
    for module in model.modules():
        base = base_of(module) if is_adapted(module) else module
        weight = base.get("weight")
        if id(module) in inside or weight is None or weight.ndim != 2 or weight.shape[0] < vocabulary:
            continue
        if isinstance(base, _EMBEDDINGS):
            found.append((module, "as_linear"))
        elif isinstance(base, _PROJECTIONS):
            found.append((module, "__call__"))
    return found


class _Recorder:
    """Appends each call of a module's method to ``calls``, with its output."""

    def __init__(self, module: Module, method: str, calls: list[tuple[Module, str, mx.array]]) -> None:
        self._module, self._method, self._calls = module, method, calls

    def __call__(self, original: Callable[..., mx.array], *args: Any) -> mx.array:
        output = original(*args)
        self._calls.append((self._module, self._method, output))
        return output


def gathered_logits(model: Module, head: Head, inputs: mx.array, positions: mx.array) -> mx.array:
    """Logits ``[N, V]`` at the flat ``positions`` ``[N]`` of ``inputs`` ``[rows, length]``."""

    def at_positions(original: Callable[..., mx.array], x: mx.array) -> mx.array:
        return original(_gather(x, positions))

    with replaced(head.module, head.method, at_positions):
        logits: mx.array = model(inputs)
    return logits.squeeze(0)


def gathered_hidden(model: Module, head: Head, inputs: mx.array, positions: mx.array) -> mx.array:
    """The hidden states ``[N, hidden]`` that the projection reads at the flat ``positions``."""
    seen: list[mx.array] = []

    def record(original: Callable[..., mx.array], x: mx.array) -> mx.array:
        seen.append(_gather(x, positions))
        # The model goes on with logits of the right shape. Nobody uses what it makes of them, so MLX never
        # computes them.
        return original(seen[-1])

    with replaced(head.module, head.method, record):
        model(inputs)
    if len(seen) != 1:
        raise NotApplicable(f"its projection is called {len(seen)} times in a forward pass")
    return seen[0].squeeze(0)


def _gather(x: mx.array, positions: mx.array) -> mx.array:
    """``[rows, length, hidden]`` to ``[1, N, hidden]``: one row, as models expect a batch axis."""
    return x.reshape(-1, x.shape[-1])[positions][None]


def logits_of_hidden(model: Module, head: Head, inputs: mx.array) -> Callable[[mx.array], mx.array]:
    """The rest of the model behind the gathered hidden states: ``[n, hidden]`` to ``[n, V]``.

    Where the model scales or caps the projection's output, the whole model is traced again with the projection's
    input replaced. Everything before the projection is dead code then, and ``inputs`` only give it a shape.
    """

    def bare(hidden: mx.array) -> mx.array:
        logits: mx.array = getattr(head.module, head.method)(hidden)
        return logits

    def through_the_model(hidden: mx.array) -> mx.array:
        with (
            dropout_off(model),
            replaced(head.module, head.method, lambda original, x: original(hidden[None])),
        ):
            logits: mx.array = model(inputs[:1])
        return logits.squeeze(0)

    return bare if head.bare else through_the_model
