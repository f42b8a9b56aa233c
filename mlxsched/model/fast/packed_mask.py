"""The attention mask of sequence packing, handed to the model as its cache.

Every model of mlx-lm takes a ``cache=`` and most ask it for their mask, so a cache that makes a block-diagonal mask
reaches the attention of 66 of 100 architectures. Positions run on along the packed line, which rotary embeddings
don't notice: they depend on distances only. Models that count positions from the start of the line (GPT-2), carry
a state along it (Mamba) or make their own mask fail the self-check, and are trained without packing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.model.fast.patching import replaced


class _PackedCache:
    """Stands in for the cache of every layer: stores nothing, and masks the tokens of other segments."""

    offset = 0

    def __init__(self, segments: mx.array) -> None:
        # [lines, width] to [lines, 1, width, width]: one mask for all heads
        self._same = segments[:, None, :, None] == segments[:, None, None, :]

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None, **_: Any
    ) -> mx.array:
        """True where a token may look: back, within its segment, and within the window if there is one."""
        position = mx.arange(length)
        distance = position[:, None] - position[None]
        seen = distance >= 0
        if window_size is not None:
            seen = seen & (distance < window_size)
        return self._same & seen

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Nothing came before."""
        return keys, values


@contextmanager
def packed_attention(model: Module, segments: mx.array) -> Iterator[None]:
    """Inside, ``model(inputs)`` lets a token see only tokens with its own number in ``segments`` ``[lines, width]``."""
    cache = [_PackedCache(segments)] * _n_caches(model)

    def with_mask(original: Any, inputs: mx.array) -> Any:
        return original(inputs, cache=cache)

    with replaced(model, "__call__", with_mask):
        yield


def _n_caches(model: Any) -> int:
    return len(model.make_cache()) if hasattr(model, "make_cache") else len(model.layers)
