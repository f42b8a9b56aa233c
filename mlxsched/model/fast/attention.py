"""Causal attention in blocks of queries, each with the keys that it may see and no others.

Without a fused kernel MLX computes all ``length ** 2`` scores of a head and masks half of them away. A block of queries
needs only the keys up to its own end: with 8 blocks, 7/16 of the scores are neither computed nor stored. In float32 on a
CPU, `parted_attention` computes each block: it masks only the block's own square, does not copy shared keys to every
row, and takes less time for exponentials.

Measured on the CPU, which has no fused kernel. The release notes of MLX 0.32.4 announce a fused backward pass on Metal,
where unblocked attention may then be faster and use less memory. This has not been measured with this package, so a run
times both on its own device (`mlxsched.training.tuning`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, NamedTuple, cast

import mlx.core as mx

from mlxsched.model.fast.growing_cache import joins_recorded, parts_of_joined
from mlxsched.model.fast.parted_attention import Keys, attention
from mlxsched.model.fast.patching import Swap, traced_calls

Attention = Callable[[mx.array, mx.array, mx.array], mx.array]
Edges = list[tuple[int, int]]
# Users report that the fused backward pass of MLX 0.32.4 on Metal raises for 8 queries or fewer. The limit here is
# twice that, since so short a block is never an advantage.
FEWEST = 16


@dataclass(frozen=True)
class Blocks:
    """At least ``least`` queries in a block (never fewer than 16), and at most ``most`` blocks: each takes time to trace.

    ``kept``: the backward pass finds the softmax of the scores in memory. Otherwise it recomputes them block by
    block, in a quarter of the memory and half again the time (Rabe & Staats, 2021, arXiv 2112.05682).
    """

    least: int
    most: int = 8
    kept: bool = True

    def edges(self, length: int) -> Edges:
        """First and last query (exclusive) of each block.

        >>> Blocks(128).edges(300)
        [(0, 128), (128, 256), (256, 300)]
        >>> Blocks(128).edges(260)
        [(0, 128), (128, 260)]
        """
        size = max(self.least, FEWEST, -(-length // self.most))
        starts = list(range(0, length, size))
        if len(starts) > 1 and length - starts[-1] < FEWEST:  # joins the block before it
            starts.pop()
        return list(itertools.pairwise([*starts, length]))

    def shares(self, length: int) -> tuple[float, float]:
        """Shares of the ``length ** 2`` scores: kept for the backward pass, and in memory at once in a layer.

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
    """The blocks of a run: the lean ones where memory is so short that layers are recomputed (``checkpoint``)."""
    return LEAN if checkpoint else KEPT


def copies_shared_keys(blocks: Blocks) -> bool:
    """Whether attention in ``blocks`` copies the keys of a shared prefix to every row, even in float32.

    It does on a GPU, where attention is not cut, and where the backward pass recomputes scores. In half precision, it
    always does.
    """
    return blocks == WHOLE or not blocks.kept or mx.default_device().type != mx.DeviceType.cpu


@contextmanager
def in_blocks(blocks: Blocks | None) -> Iterator[None]:
    """Inside, `mx.fast.scaled_dot_product_attention` is computed in ``blocks`` (None: unchanged).

    Only causal attention without sinks is cut, where a model asks for the mask as ``"causal"``. Every block also sees
    the keys of a shared prefix, which precede the first query's own key. Every model looks the function up in
    ``mx.fast``, so it is replaced there while any thread is inside; a context variable keeps it unchanged in the others.
    """
    token = _BLOCKS.set(blocks)
    try:
        with _SWAP, joins_recorded():
            yield
    finally:
        _BLOCKS.reset(token)


class Call(NamedTuple):
    """An attention that can be cut: shapes of queries, keys and values, their dtype, and the scale of the scores."""

    shapes: tuple[tuple[int, ...], ...]
    dtype: mx.Dtype
    scale: float


def calls_of(model: Any, shape: tuple[int, int]) -> list[Call]:
    """Every attention that `in_blocks` would cut in a micro-batch of ``shape``; the model is only traced."""
    return [call for call in _traced(model, shape) if call is not None]


def cuts_all(model: Any, length: int) -> bool:
    """Whether the attention of every layer of ``model`` can be cut for rows of ``length`` tokens.

    It can't where a layer has a window, sinks or its own attention.
    """
    calls = _traced(model, (1, length))
    return len(calls) >= len(model.layers) and None not in calls


def _traced(model: Any, shape: tuple[int, int]) -> list[Call | None]:
    """Each attention of a forward pass, None for one that is left to MLX; nothing is computed."""
    return traced_calls(model, shape, _SEEN, partial(in_blocks, None))


_BLOCKS: ContextVar[Blocks | None] = ContextVar("blocks", default=None)
_SEEN: ContextVar[list[Call | None] | None] = ContextVar("seen", default=None)
_WHOLE: Any = mx.fast.scaled_dot_product_attention


@wraps(_WHOLE)
def _attention(queries: mx.array, keys: mx.array, values: mx.array, **options: Any) -> mx.array:
    blocks, length, seen = _BLOCKS.get(), queries.shape[2], _SEEN.get()
    can = options.get("mask") == "causal" and options.get("sinks") is None and length <= keys.shape[2]
    if seen is not None:
        shapes = tuple(tuple(array.shape) for array in (queries, keys, values))
        seen.append(Call(shapes, queries.dtype, float(options["scale"])) if can else None)
    if blocks is None or not can:
        return cast(mx.array, _WHOLE(queries, keys, values, **options))
    edges = blocks.edges(length)
    if not copies_shared_keys(blocks) and all(a.dtype == mx.float32 for a in (queries, keys, values)):
        return _parted(options["scale"], edges, queries, keys, values)
    if len(edges) == 1:
        return cast(mx.array, _WHOLE(queries, keys, values, **options))
    attend = _kept if blocks.kept else _lean
    return attend(partial(_WHOLE, **options), edges, queries, keys, values)


def _parted(scale: float, edges: Edges, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Attention block by block; of the masked scores, only those in a block's own square are computed."""
    before = keys.shape[2] - queries.shape[2]
    *shared, own = parts_of_joined(keys, values) or _cut(Keys(keys, values), [(0, before), (before, None)])
    parts = [attention(queries[:, :, a:b], shared + _cut(own, [(0, a), (a, b)]), scale) for a, b in edges]
    return mx.concatenate(parts, axis=2)


def _cut(part: Keys, edges: list[tuple[int, int | None]]) -> list[Keys]:
    """The pieces of ``part`` between ``edges`` that are not empty."""
    return [Keys(part.keys[:, :, a:b], part.values[:, :, a:b]) for a, b in edges if a != b]


_SWAP = Swap(mx.fast, "scaled_dot_product_attention", _attention)


def _kept(attend: Attention, edges: Edges, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """Attention of ``[batch, heads, length, width]`` arrays, block by block."""
    # With fewer queries than keys, "causal" aligns their ends: the last query of a block sees its last key.
    before = keys.shape[2] - queries.shape[2]
    parts = [
        attend(queries[:, :, a:b], keys[:, :, : before + b], values[:, :, : before + b]) for a, b in edges
    ]
    return mx.concatenate(parts, axis=2)


def _lean(attend: Attention, edges: Edges, queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
    """As `_kept`, with a backward pass that recomputes the scores of one block at a time."""
    before = keys.shape[2] - queries.shape[2]

    @mx.custom_function
    def attention(queries: mx.array, keys: mx.array, values: mx.array) -> mx.array:
        parts: list[mx.array] = []
        for a, b in edges:
            block = (queries[:, :, a:b], keys[:, :, : before + b], values[:, :, : before + b])
            # MLX starts whatever has its inputs: without the dependency all blocks are in memory at once.
            parts.append(attend(*(mx.depends(block, parts[-1:]) if parts else block)))
        return mx.concatenate(parts, axis=2)

    @attention.vjp
    def backward(
        primals: tuple[mx.array, mx.array, mx.array], cotangent: mx.array, _: mx.array
    ) -> tuple[mx.array, mx.array, mx.array]:
        queries, keys, values = primals
        to_queries: list[mx.array] = []
        # Each key gets a gradient from up to 16 blocks; summed in half precision they would lose digits.
        to_keys, to_values = mx.zeros(keys.shape), mx.zeros(values.shape)
        for a, b in edges:
            end = before + b
            block = [queries[:, :, a:b], keys[:, :, :end], values[:, :, :end], cotangent[:, :, a:b]]
            if to_queries:
                block = mx.depends(block, [to_queries[-1], to_keys, to_values])
            found = mx.vjp(attend, block[:3], block[3:])[1]
            to_queries.append(found[0])
            to_keys, to_values = (
                to_keys.at[:, :, :end].add(found[1]),
                to_values.at[:, :, :end].add(found[2]),
            )
        to_keys, to_values = to_keys.astype(keys.dtype), to_values.astype(values.dtype)
        return mx.concatenate(to_queries, axis=2), to_keys, to_values

    return cast(mx.array, attention(queries, keys, values))
