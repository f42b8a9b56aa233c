"""Methods of single module instances, replaced for the length of a trace.

MLX is lazy, so a value that is replaced makes whatever computed it dead code, which is never run. That is how the
short cuts get inside any model without a copy of its source. No class is changed: only the one instance gets a
class of its own, and it gets the old one back at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mlx.nn as nn
from mlx.nn.layers.base import Module

_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)
Replacement = Callable[..., Any]


class NotApplicable(Exception):
    """A short cut does not fit this model; the plain path does its work."""


@contextmanager
def replaced(module: Module, method: str, replacement: Replacement) -> Iterator[None]:
    """Inside, ``module.method(*args)`` is ``replacement(original, *args)``, ``original`` being the bound method."""
    kept = type(module)
    original = getattr(kept, method)

    def substitute(self: Module, *args: Any, **kwargs: Any) -> Any:
        return replacement(partial(original, self), *args, **kwargs)

    module.__class__ = type(kept.__name__, (kept,), {method: substitute})
    try:
        yield
    finally:
        module.__class__ = kept


@contextmanager
def dropout_off(model: Module) -> Iterator[None]:
    """Inside, no dropout of ``model`` draws: what is traced leaves the global random state alone."""
    switched = [m for m in model.modules() if isinstance(m, _DROPOUTS) and m.training]
    for module in switched:
        module._training = False
    try:
        yield
    finally:
        for module in switched:
            module._training = True
