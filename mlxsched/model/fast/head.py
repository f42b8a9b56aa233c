"""The projection onto the vocabulary, applied only where there are targets.

The model's own scaling and soft-capping still act: they come after the projection and see fewer positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

from mlxsched.model.fast.patching import NotApplicable, dropout_off, replaced
from mlxsched.model.trees import flatten

_EMBEDDINGS = (nn.Embedding, nn.QuantizedEmbedding)
_PROJECTIONS = (nn.Linear, nn.QuantizedLinear)


@dataclass(frozen=True)
class Head:
    """The module that makes the logits, the method that does it, and what is known of it.

    ``bare``: the model's output is the projection's, untouched. ``frozen``: nothing in it is trained.
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
    with dropout_off(model):
        vocabulary = model(inputs).shape[-1]
        calls: list[tuple[Module, str, mx.array]] = []
        logits = _watched(model, inputs, _candidates(model, vocabulary), calls)
    calls = [call for call in calls if call[2].shape[:2] == inputs.shape and call[2].shape[-1] >= vocabulary]
    if not calls:
        raise NotApplicable("its logits do not come from a projection module")
    module, method, output = calls[-1]
    bare = output.shape == logits.shape and bool(mx.array_equal(output, logits, equal_nan=True).item())
    frozen = not flatten(module.trainable_parameters())
    return Head(module, method, vocabulary, bare, frozen)


def _candidates(model: Module, vocabulary: int) -> list[tuple[Module, str]]:
    found: list[tuple[Module, str]] = []
    for module in model.modules():
        weight = module.get("weight")
        if weight is None or weight.ndim != 2 or weight.shape[0] < vocabulary:
            continue
        if isinstance(module, _EMBEDDINGS):
            found.append((module, "as_linear"))
        elif isinstance(module, _PROJECTIONS):
            found.append((module, "__call__"))
    return found


def _watched(
    model: Module,
    inputs: mx.array,
    candidates: list[tuple[Module, str]],
    calls: list[tuple[Module, str, mx.array]],
) -> mx.array:
    """One forward pass that notes each call of a candidate with its output."""
    if not candidates:
        logits: mx.array = model(inputs)
        return logits
    (module, method), rest = candidates[0], candidates[1:]

    def noting(original: Callable[..., mx.array], *args: Any) -> mx.array:
        output = original(*args)
        calls.append((module, method, output))
        return output

    with replaced(module, method, noting):
        return _watched(model, inputs, rest, calls)


def gathered_logits(model: Module, head: Head, inputs: mx.array, positions: mx.array) -> mx.array:
    """Logits ``[N, V]`` at the flat ``positions`` ``[N]`` of ``inputs`` ``[rows, length]``."""

    def at_positions(original: Callable[..., mx.array], x: mx.array) -> mx.array:
        return original(_gather(x, positions))

    with replaced(head.module, head.method, at_positions):
        logits: mx.array = model(inputs)
    return logits.squeeze(0)


def gathered_hidden(model: Module, head: Head, inputs: mx.array, positions: mx.array) -> mx.array:
    """What the projection would see at the flat ``positions``: ``[N, hidden]``."""
    seen: list[mx.array] = []

    def record(original: Callable[..., mx.array], x: mx.array) -> mx.array:
        seen.append(_gather(x, positions))
        return original(seen[-1])  # dead code from here on

    with replaced(head.module, head.method, record):
        model(inputs)
    if len(seen) != 1:
        raise NotApplicable(f"its projection is called {len(seen)} times in a forward pass")
    return seen[0].squeeze(0)


def _gather(x: mx.array, positions: mx.array) -> mx.array:
    return x.reshape(-1, x.shape[-1])[positions][None]


def logits_of_hidden(model: Module, head: Head, inputs: mx.array) -> Callable[[mx.array], mx.array]:
    """The rest of the model behind the gathered states: ``[n, hidden]`` to ``[n, V]``.

    Where the model does something after the projection, that is had by running all of it with the projection's
    input replaced; ``inputs`` only give the dead code in front something to work on.
    """

    def bare(states: mx.array) -> mx.array:
        logits: mx.array = getattr(head.module, head.method)(states)
        return logits

    def through_the_model(states: mx.array) -> mx.array:
        with (
            dropout_off(model),
            replaced(head.module, head.method, lambda original, x: original(states[None])),
        ):
            logits: mx.array = model(inputs[:1])
        return logits.squeeze(0)

    return bare if head.bare else through_the_model
