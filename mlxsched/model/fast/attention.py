"""Causal attention in blocks of queries, each with the keys that it may see and no others.

Where MLX has no fused kernel (on the CPU, and in training on Metal) it computes all scores and masks half of them away.
A block of queries needs only the keys up to its own end: nearly half of the scores are never computed nor kept.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, cast

import mlx.core as mx

from mlxsched.model.fast.patching import dropout_off

Attention = Callable[[mx.array, mx.array, mx.array], mx.array]
Edges = list[tuple[int, int]]


@dataclass(frozen=True)
class Blocks:
    """At least ``least`` queries in a block, and at most ``most`` blocks: each takes time to trace.

    ``kept``: the backward pass finds the scores' softmax in memory. Otherwise it computes one block's again after
    the other, which takes a quarter of the memory and half as long again (Rabe & Staats, 2021, arXiv 2112.05682).
    """

    least: int
    most: int = 8
    kept: bool = True

    def edges(self, length: int) -> Edges:
        """First and last query (exclusive) of each block.

        >>> Blocks(128).edges(300)
        [(0, 128), (128, 256), (256, 300)]
        """
        size = max(self.least, -(-length // self.most))
        return list(itertools.pairwise([*range(0, length, size), length]))

    def shares(self, length: int) -> tuple[float, float]:
        """Of the ``length ** 2`` scores, those kept for the backward pass, and those in memory while it computes.

        >>> Blocks(128).shares(256), Blocks(128, kept=False).shares(256)
        ((0.75, 0.75), (0.0, 0.5))
        """
        scores = [(stop - first) * stop / length**2 for first, stop in self.edges(length)]
        if self.kept or len(scores) == 1:
            return sum(scores), sum(scores)
        return 0.0, max(scores)


WHOLE = Blocks(1, most=1)
KEPT = Blocks(128)
LEAN = Blocks(64, most=16, kept=False)


def blocks_for(checkpoint: int) -> Blocks:
    """The blocks of a run: those of little memory where it is so short that layers are computed again."""
    return LEAN if checkpoint else KEPT


@contextmanager
def in_blocks(blocks: Blocks | None) -> Iterator[None]:
    """Inside, `mx.fast.scaled_dot_product_attention` goes ``blocks`` by block (None: all at once, as ever).

    Only whole causal attention without sinks is cut, where a model asks for the mask by its name. ``mx.fast`` is where
    all models find the function, so it is replaced there while any thread is inside; in the others it does as ever.
    """
    token = _BLOCKS.set(blocks)
    _install(1)
    try:
        yield
    finally:
        _install(-1)
        _BLOCKS.reset(token)


def cuts_all(model: Any, length: int, blocks: Blocks) -> bool:
    """Whether the attention of every layer of ``model`` can be cut for rows of ``length`` tokens.

    It can't where a layer has a window, sinks or attention of its own. Nothing is computed, only traced.
    """
    cut: list[bool] = []
    seen = _SEEN.set(cut)
    try:
        with in_blocks(blocks), dropout_off(model):
            model(mx.zeros((1, length), mx.int32))
    except Exception:  # noqa: BLE001 a model that is too strange to try
        return False
    finally:
        _SEEN.reset(seen)
    return len(cut) >= len(model.layers) and all(cut)


_BLOCKS: ContextVar[Blocks | None] = ContextVar("blocks", default=None)
_SEEN: ContextVar[list[bool] | None] = ContextVar("seen", default=None)
_WHOLE: Any = mx.fast.scaled_dot_product_attention
_LOCK = threading.Lock()
_inside = 0


def _install(entered: int) -> None:
    global _inside
    fast: Any = mx.fast
    with _LOCK:
        _inside += entered
        fast.scaled_dot_product_attention = _attention if _inside else _WHOLE


@wraps(_WHOLE)
def _attention(queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
    blocks, length, seen = _BLOCKS.get(), queries.shape[2], _SEEN.get()
    can = options.get("mask") == "causal" and options.get("sinks") is None and length == keys.shape[2]
    if seen is not None:
        seen.append(can)
    if blocks is None or not can or len(blocks.edges(length)) == 1:
        return cast(mx.array, _WHOLE(queries, keys, values, **options))
    way = _kept if blocks.kept else _lean
    return way(partial(_WHOLE, **options), blocks.edges(length), queries, keys, values)


def _kept(attend: Attention, edges: Edges, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    parts = [attend(queries[:, :, a:b], keys[:, :, :b], values[:, :, :b]) for a, b in edges]
    return mx.concatenate(parts, axis=2)


def _lean(attend: Attention, edges: Edges, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """The same with a backward pass that has one block's scores at a time."""

    @mx.custom_function
    def attention(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        parts: list[mx.array] = []
        for a, b in edges:
            block = (queries[:, :, a:b], keys[:, :, :b], values[:, :, :b])
            # One after the other, or all live at once.
            parts.append(attend(*(mx.depends(block, parts[-1:]) if parts else block)))
        return mx.concatenate(parts, axis=2)

    @attention.vjp
    def backward(
        primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        queries, keys, values = primals
        to_queries: list[mx.array] = []
        # In float32, or sixteen sums of half precision would lose digits.
        to_keys, to_values = mx.zeros(keys.shape), mx.zeros(values.shape)
        for a, b in edges:
            block = [queries[:, :, a:b], keys[:, :, :b], values[:, :, :b], cotangent[:, :, a:b]]
            if to_queries:
                block = mx.depends(block, [to_queries[-1], to_keys, to_values])
            found = mx.vjp(attend, block[:3], block[3:])[1]
            to_queries.append(found[0])
            to_keys, to_values = to_keys.at[:, :, :b].add(found[1]), to_values.at[:, :, :b].add(found[2])
        to_keys, to_values = to_keys.astype(keys.dtype), to_values.astype(values.dtype)
        return mx.concatenate(to_queries, axis=2), to_keys, to_values

    return cast(mx.array, attention(queries, keys, values))
