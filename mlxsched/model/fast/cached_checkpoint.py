"""Gradient checkpointing of layers that read and write a cache.

`mx.checkpoint` only tracks arrays that are arguments or results of a function. A cache is an object: the arrays that a
layer reads from it and writes to it would be constants of the first trace. They are therefore passed as arguments and
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx

from mlxsched.model.fast.growing_cache import GrowingCache, parts_of, put, single_caches


def caches_among(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The single caches among the arguments of a layer."""
    given = [value for value in (*args, *kwargs.values()) if _is_cache(value)]
    return single_caches(given)


def _is_cache(value: Any) -> bool:
    return isinstance(value, GrowingCache) or hasattr(value, "caches") or hasattr(value, "cache")


def checkpoint_cached(layer: Callable[..., Any], parameters: Any, *args: Any, **kwargs: Any) -> Any:
    """``layer(parameters, *args, **kwargs)``, recomputed in the backward pass."""
    caches = caches_among(args, kwargs)
    offsets = [getattr(cache, "offset", 0) for cache in caches]
    arrays: list[mx.array] = []
    form = _without_arrays([[parts_of(cache) for cache in caches], list(args), kwargs], arrays)
    results: list[Any] = []

    def pure(parameters: Any, arrays: list[mx.array]) -> list[mx.array]:
        before, args, kwargs = _with_arrays(form, iter(arrays))
        _set(caches, before, offsets)
        output = layer(parameters, *args, **kwargs)
        after = [[parts_of(cache) for cache in caches], [getattr(c, "offset", 0) for c in caches]]
        found: list[mx.array] = []
        shape = _without_arrays([output, after], found)
        # An array that occurs twice (keys that the cache holds and the layer also returns) would keep only one of its
        # cotangents.
        distinct = list({id(array): array for array in found}.values())
        number = {id(array): place for place, array in enumerate(distinct)}
        results[:] = [shape, [number[id(array)] for array in found]]
        return distinct

    got: Any = mx.checkpoint(pure)(parameters, arrays)
    shape, order = results
    output, (after, ends) = _with_arrays(shape, iter([got[place] for place in order]))
    _set(caches, after, ends)
    return output


def _set(caches: list[Any], parts: list[list[mx.array | None]], offsets: list[Any]) -> None:
    for cache, its, offset in zip(caches, parts, offsets, strict=True):
        put(cache, its)
        if isinstance(cache, GrowingCache):
            cache.offset = offset


class _Hole:
    """Placeholder for an array."""


def _without_arrays(value: Any, found: list[mx.array]) -> Any:
    if isinstance(value, mx.array):
        found.append(value)
        return _Hole
    if isinstance(value, (list, tuple)):
        return type(value)(_without_arrays(item, found) for item in value)
    return {k: _without_arrays(v, found) for k, v in value.items()} if isinstance(value, dict) else value


def _with_arrays(form: Any, arrays: Iterator[mx.array]) -> Any:
    if form is _Hole:
        return next(arrays)
    if isinstance(form, (list, tuple)):
        return type(form)(_with_arrays(item, arrays) for item in form)
    return {k: _with_arrays(v, arrays) for k, v in form.items()} if isinstance(form, dict) else form
