"""The recurrence of gated delta nets by MLX's own function.

While a model is in training mode, mlx-lm 0.32.2 computes it token by token (``gated_delta_ops``), since its kernel for Metal has
no backward pass. `mx.fast.gated_delta_update` of MLX 0.32.4 computes the same; the release notes announce that its backward
pass is fused on Metal. The tests compare both on the CPU. It has not been measured on Metal, so a run times both if the
model has such layers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import mlx.core as mx

from mlxsched.model.fast.patching import Swap, traced_calls

_MODULE = "mlx_lm.models.gated_delta"  # loaded with the first model that has such layers
_FUSED: ContextVar[bool] = ContextVar("fused", default=False)
_SEEN: ContextVar[list[Delta] | None] = ContextVar("deltas", default=None)


class Delta(NamedTuple):
    """A call of the recurrence: shapes and dtypes of queries, keys, values, decays and rates."""

    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[mx.Dtype, ...]


def can_fuse_delta() -> bool:
    """Whether mlx-lm's module for such layers is loaded, and this version of MLX has the function."""
    return hasattr(mx.fast, "gated_delta_update") and hasattr(sys.modules.get(_MODULE), "gated_delta_ops")


@contextmanager
def fused_gated_delta(fused: bool) -> Iterator[None]:
    """Inside, the recurrence is computed by MLX's function if ``fused``."""
    if not fused:
        yield
        return
    token = _FUSED.set(True)
    try:
        with _swap():
            yield
    finally:
        _FUSED.reset(token)


def deltas_of(model: Any, shape: tuple[int, int]) -> list[Delta]:
    """Each call of the recurrence in a micro-batch of ``shape``; the model is only traced."""
    return traced_calls(model, shape, _SEEN, _swap) if can_fuse_delta() else []


def recurrence(arrays: list[mx.array]) -> mx.array:
    """The outputs for queries, keys, values, decays and rates, as a model calls it: inside `fused_gated_delta` or not."""
    output: mx.array = sys.modules[_MODULE].gated_delta_ops(*arrays)[0]
    return output


@cache
def _swap() -> Swap:
    return Swap(sys.modules[_MODULE], "gated_delta_ops", _delta)


def _delta(
    q: mx.array, k: mx.array, v: mx.array, g: mx.array, beta: mx.array, state: Any = None, mask: Any = None
) -> Any:
    seen, arrays = _SEEN.get(), (q, k, v, g, beta)
    scalar = g.ndim == 3  # a decay for each head; MLX's function has no others
    if seen is not None and scalar:
        seen.append(Delta(tuple(tuple(a.shape) for a in arrays), tuple(a.dtype for a in arrays)))
    if _FUSED.get() and scalar:
        return tuple(mx.fast.gated_delta_update(*arrays, initial_state=state, mask=mask))
    return _swap().original(*arrays, state, mask)
