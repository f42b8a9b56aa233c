"""Attention over keys in several parts, some of which all rows share, with an analytic backward pass.

Shared keys are not copied to every row: the queries of all rows form one matrix for them, so one large product takes
the place of many small ones. Only a query's own block of keys is masked. The backward pass reuses the powers of the
forward pass, and gets the sums over all keys from the result (Dao et al., 2022, arXiv 2205.14135, appendix B).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple, cast

import mlx.core as mx

from mlxsched.model.fast.exponential import exp


class Keys(NamedTuple):
    """Keys and values ``[rows, heads, n, width]``; one row if all rows share them."""

    keys: mx.array
    values: mx.array


@dataclass(frozen=True)
class _Layout:
    """Queries ``[rows, heads, length, width]`` as one matrix for each head of ``keys``, or of each row's keys."""

    queries: tuple[int, ...]
    keys: tuple[int, ...]

    def matrices(self, x: mx.array) -> mx.array:
        """``[rows, heads, length, w]`` to ``[1 or rows, heads of keys, n, w]``."""
        rows, heads, length, _ = self.queries
        of_keys, width = self.keys[1], x.shape[-1]
        if self.keys[0] < rows:
            x = x.reshape(rows, of_keys, heads // of_keys, length, width).transpose(1, 0, 2, 3, 4)
        return x.reshape(self.keys[0], of_keys, -1, width)

    def back(self, x: mx.array) -> mx.array:
        """The inverse of `matrices`."""
        rows, heads, length, _ = self.queries
        of_keys, width = self.keys[1], x.shape[-1]
        if self.keys[0] < rows:
            x = x.reshape(of_keys, rows, heads // of_keys, length, width).transpose(1, 0, 2, 3, 4)
        return x.reshape(rows, heads, length, width)


def attention(queries: mx.array, parts: list[Keys], scale: float) -> mx.array:
    """``softmax(scale * queries @ keys.T) @ values`` over the keys of all ``parts``; all arrays are float32.

    ``queries`` are ``[rows, heads, length, width]``, and several heads of queries may use one head of keys. Every query
    sees all keys of all parts but the last, which has ``length`` keys: query i sees keys 0 to i of it.
    """
    return cast(list[mx.array], _attend(queries * scale, parts))[0]


@mx.custom_function
def _attend(queries: mx.array, parts: list[Keys]) -> list[mx.array]:
    """The attention of scaled queries, the sum of the powers of each query, and the powers for each part."""
    layouts = [_Layout(queries.shape, keys.shape) for keys, _ in parts]
    scores = [to.matrices(queries) @ _turned(keys) for to, (keys, _) in zip(layouts, parts, strict=True)]
    scores[-1] = _masked(scores[-1])
    highest = reduce(
        mx.maximum, [to.back(s.max(-1, keepdims=True)) for to, s in zip(layouts, scores, strict=True)]
    )
    powers = [exp(s - to.matrices(highest)) for to, s in zip(layouts, scores, strict=True)]
    total = reduce(add, [to.back(p.sum(-1, keepdims=True)) for to, p in zip(layouts, powers, strict=True)])
    sums = [to.back(p @ values) for to, p, (_, values) in zip(layouts, powers, parts, strict=True)]
    return [reduce(add, sums) / total, total, *powers]


@_attend.vjp
def _backward(
    primals: tuple[mx.array, list[Keys]], cotangents: list[mx.array], outputs: list[mx.array]
) -> tuple[mx.array, list[Keys]]:
    queries, parts = primals
    result, total, *powers = outputs
    slope = cotangents[0] / total
    mean = (slope * result).sum(-1, keepdims=True)
    to_queries, to_parts = [], []
    for power, (keys, values) in zip(powers, parts, strict=True):
        to = _Layout(queries.shape, keys.shape)
        to_scores = power * (to.matrices(slope) @ _turned(values) - to.matrices(mean))
        to_queries.append(to.back(to_scores @ keys))
        to_parts.append(Keys(_turned(to_scores) @ to.matrices(queries), _turned(power) @ to.matrices(slope)))
    return reduce(add, to_queries), to_parts


def _masked(scores: mx.array) -> mx.array:
    """``scores`` ``[rows, heads, n * length, length]`` with -inf for the keys after each query."""
    length = scores.shape[-1]
    seen = mx.arange(length)[:, None] >= mx.arange(length)[None]
    return mx.where(seen, scores.reshape(*scores.shape[:2], -1, length, length), -mx.inf).reshape(
        scores.shape
    )


def _turned(x: mx.array) -> mx.array:
    return x.swapaxes(-1, -2)
