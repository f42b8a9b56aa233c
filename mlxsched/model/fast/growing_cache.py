"""Differentiable caches, from which rows continue after a shared prefix.

mlx-lm's own caches write into preallocated arrays, which hides the prefix from autodiff. These grow by concatenation
and keep all keys; the mask implements sliding windows. Recurrent layers use mlx-lm's `ArraysCache`, which only holds
arrays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.model.fast.parted_attention import Keys
from mlxsched.model.fast.patching import NotApplicable, replaced

State = list[mx.array]  # what the caches of all layers hold, each array ``[1, ...]``
Form = tuple[tuple[int, ...], ...]  # for each cache, which of its parts are in the state


class GrowingCache:
    """Keys and values ``[rows, heads, length, width]``; a prefix of one row is broadcast to all rows."""

    start_position = 0  # of mlx-lm's ChunkedKVCache

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.offset = 0

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append, and return all."""
        self.offset += keys.shape[2]
        if self.keys is None or self.values is None:
            self.keys, self.values = keys, values
            return keys, values
        parts = [Keys(self.keys, self.values), Keys(keys, values)]
        self.keys = mx.concatenate([_rows(self.keys, keys.shape[0]), keys], axis=2)
        self.values = mx.concatenate([_rows(self.values, values.shape[0]), values], axis=2)
        _JOINED.get([]).append((Keys(self.keys, self.values), parts))
        return self.keys, self.values

    def keys_and_values(self) -> tuple[mx.array | None, mx.array | None]:
        """What it holds."""
        return self.keys, self.values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None, **_: Any
    ) -> mx.array | str | None:
        """Causal, the last of ``length`` queries aligned with the last key."""
        if not return_array and (window_size is None or self.offset + length <= window_size):
            return "causal" if length > 1 else None
        query = mx.arange(self.offset, self.offset + length)[:, None]
        key = mx.arange(self.offset + length)[None]
        seen = query >= key
        return seen if window_size is None else seen & (query < key + window_size)

    def maybe_trim_front(self) -> None:
        """Do nothing: the mask implements the window."""

    def empty(self) -> bool:
        """Whether nothing has been appended yet."""
        return self.keys is None


_JOINED: ContextVar[list[tuple[Keys, list[Keys]]]] = ContextVar("joined")


@contextmanager
def joins_recorded() -> Iterator[None]:
    """Inside, `parts_of_joined` knows the parts of what caches have joined."""
    token = _JOINED.set([])
    try:
        yield
    finally:
        _JOINED.reset(token)


def parts_of_joined(keys: mx.array, values: mx.array) -> list[Keys] | None:
    """The parts that a cache has joined into ``keys`` and ``values``: those that it held, with one row if all rows share
    them, and those appended. None if no cache has joined these arrays."""
    found = (parts for whole, parts in _JOINED.get([]) if whole.keys is keys and whole.values is values)
    return next(found, None)


def _rows(array: mx.array, rows: int) -> mx.array:
    return array if array.shape[0] == rows else mx.broadcast_to(array, (rows, *array.shape[1:]))


def growing_caches(model: Module) -> list[Any]:
    """Empty caches for ``model``, in the form of mlx-lm's ``make_prompt_cache``."""
    from mlx_lm.models.cache import make_prompt_cache

    caches: list[Any] = [_growing(cache) for cache in make_prompt_cache(model)]
    return caches


def _growing(cache: Any) -> Any:
    if hasattr(cache, "caches"):  # mlx-lm's CacheList
        return type(cache)(*map(_growing, cache.caches))
    return GrowingCache() if hasattr(cache, "update_and_fetch") else cache


def single_caches(caches: Sequence[Any]) -> list[Any]:
    """``caches`` with nested lists flattened."""
    found: list[Any] = []
    for cache in caches:
        found += single_caches(cache.caches) if hasattr(cache, "caches") else [cache]
    return found


def parts_of(cache: Any) -> list[mx.array | None]:
    """The arrays of a single cache; None for a part that it does not have yet."""
    return [cache.keys, cache.values] if isinstance(cache, GrowingCache) else list(cache.cache)


def put(cache: Any, parts: list[mx.array | None]) -> None:
    """Give a single cache its ``parts``."""
    if isinstance(cache, GrowingCache):
        cache.keys, cache.values = parts
    else:
        cache.cache = parts


def state_of(caches: list[Any]) -> State:
    """The arrays in ``caches``, in the order of `form_of`."""
    return [part for cache in single_caches(caches) for part in parts_of(cache) if part is not None]


def form_of(model: Module, inputs: mx.array) -> Form:
    """Which parts of its caches ``model`` fills when it reads ``inputs``. The model is traced; nothing is computed.

    Raises ``NotApplicable`` if it fills none, or keeps state that is not an array of a cache.
    """
    caches = growing_caches(model)
    model(inputs, cache=caches)
    singles = single_caches(caches)
    if not all(isinstance(cache, GrowingCache) or hasattr(cache, "cache") for cache in singles):
        raise NotApplicable("it has caches of an unknown kind")
    form = filled(caches)
    if not any(form):
        raise NotApplicable("it does not use its caches")
    return form


def filled(caches: list[Any]) -> Form:
    """Which parts of each single cache are filled."""
    return tuple(
        tuple(number for number, part in enumerate(parts_of(cache)) if part is not None)
        for cache in single_caches(caches)
    )


def resumed_caches(model: Module, form: Form, state: State, length: int, rows: int) -> list[Any]:
    """Caches after a prefix of ``length`` tokens with the given ``state``, for ``rows`` rows."""
    caches, arrays = growing_caches(model), iter(state)
    for cache, filled in zip(single_caches(caches), form, strict=True):
        parts = parts_of(cache)
        for number in filled:
            array = next(arrays)
            parts[number] = array if isinstance(cache, GrowingCache) else _rows(array, rows)
        put(cache, parts)
        if isinstance(cache, GrowingCache):
            cache.offset = length  # also where another layer keeps the keys
    return caches


@contextmanager
def with_caches(model: Module, caches: list[Any]) -> Iterator[None]:
    """Inside, ``model(inputs)`` uses ``caches``."""

    def cached(original: Any, inputs: mx.array, **_: Any) -> Any:
        return original(inputs, cache=caches)

    with replaced(model, "__call__", cached):
        yield
