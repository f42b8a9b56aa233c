"""Gradient checkpointing: activations recomputed in the backward pass (Chen et al., 2016, arXiv 1604.06174).

Only this model's layers, and only while a step is traced. mlx-lm's own switch changes the class of the first layer
for the whole process, and misses the other kinds of layers that hybrid models have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

from mlxsched.model.fast.attention import Blocks, in_blocks
from mlxsched.model.fast.cached_checkpoint import caches_among, checkpoint_cached
from mlxsched.model.fast.patching import replaced


@contextmanager
def checkpointed(model: Module, every: int, blocks: Blocks | None = None) -> Iterator[None]:
    """Inside, each ``every``-th layer of ``model`` keeps only its inputs for the backward pass; 0 for none.

    ``blocks``: how the attention of these layers is cut.
    """
    with ExitStack() as stack:
        for layer in distinct(model.layers)[::every] if every else []:
            stack.enter_context(replaced(layer, "__call__", _Checkpoint(layer, blocks)))
        yield


def distinct(layers: Any) -> list[Module]:
    """The layers in order, each once: some models run through the same one twice."""
    return list({id(layer): layer for layer in layers}.values())


class _Checkpoint:
    """Runs a layer inside `mx.checkpoint`, as a pure function of its parameters, its random keys and its inputs."""

    def __init__(self, layer: Module, blocks: Blocks | None) -> None:
        self._layer, self._blocks = layer, blocks
        self._dropouts = [m for m in layer.modules() if isinstance(m, nn.Dropout) and _draws(m)]

    def __call__(self, original: Any, *args: Any, **kwargs: Any) -> Any:
        def pure(parameters: Any, keys: list[mx.array], *args: Any, **kwargs: Any) -> Any:
            self._layer.update(parameters)
            with ExitStack() as stack:
                # mx.checkpoint traces this a second time for the backward pass, after the loss function has returned
                # and its patches are undone. So whatever matters inside the layer is patched here again.
                stack.enter_context(in_blocks(self._blocks))
                for dropout, key in zip(self._dropouts, keys, strict=True):
                    stack.enter_context(replaced(dropout, "__call__", _KeyedDropout(dropout, key)))
                return original(*args, **kwargs)

        # Drawn from the global state, the second trace would get other masks than the first: draw from keys.
        keys = [mx.random.randint(0, 2**31 - 1, (2,)).astype(mx.uint32) for _ in self._dropouts]
        parameters = self._layer.trainable_parameters()
        if caches_among(args, kwargs):  # without dropout: rows that share a prefix are trained without
            output = checkpoint_cached(
                lambda tree, *a, **k: pure(tree, [], *a, **k), parameters, *args, **kwargs
            )
        else:
            output = mx.checkpoint(pure)(parameters, keys, *args, **kwargs)
        self._layer.update(parameters)  # tracing left placeholders
        return output


class _KeyedDropout:
    """Dropout whose mask depends on ``key`` only."""

    def __init__(self, dropout: nn.Dropout, key: mx.array) -> None:
        self._keep, self._key = 1 - dropout_rate(dropout), mx.stop_gradient(key)

    def __call__(self, _original: Any, x: mx.array) -> mx.array:
        mask = mx.random.bernoulli(self._keep, x.shape, key=self._key)
        return mask * x * (1 / self._keep)


def dropout_rate(dropout: nn.Dropout) -> float:
    """The share of numbers that ``dropout`` sets to 0."""
    return float(1 - dropout._p_1)  # MLX stores the share that it keeps, and has no public name for it


def _draws(dropout: nn.Dropout) -> bool:
    return dropout.training and dropout_rate(dropout) > 0
