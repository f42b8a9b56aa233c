"""Methods of single module instances, replaced while a graph is traced.

MLX is lazy: it computes only what the result depends on. So when a method returns something else than its module
would have, whatever led to the original value is dead code and is never run. That is how the optimizations get inside
any model of mlx-lm without a copy of its source. No class is changed, because other models of the process use it:
the one instance gets a subclass of its own, and its old class back at the end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.base import Module

_DROPOUTS = (nn.Dropout, nn.Dropout2d, nn.Dropout3d)
Replacement = Callable[..., Any]
_Call = TypeVar("_Call")


class Swap:
    """A function of a module that is replaced while any thread is inside.

    The substitute tells by a context variable whether its own thread is, and calls ``original`` if not.
    """

    def __init__(self, owner: Any, name: str, substitute: Callable[..., Any]) -> None:
        self._owner, self._name, self._substitute = owner, name, substitute
        self.original: Callable[..., Any] = getattr(owner, name)
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        self._enter(1)

    def __exit__(self, *_: object) -> None:
        self._enter(-1)

    def _enter(self, entered: int) -> None:
        with self._lock:
            self._inside += entered
            setattr(self._owner, self._name, self._substitute if self._inside else self.original)


class NotApplicable(Exception):
    """An optimization does not fit this model, which is trained without it. The message is for the user."""


@contextmanager
def replaced(module: Module, method: str, replacement: Replacement) -> Iterator[None]:
    """Inside, ``module.method(*args)`` is ``replacement(original, *args)``, with ``original`` the bound method."""
    cls = type(module)
    original = getattr(cls, method)

    def substitute(self: Module, *args: Any, **kwargs: Any) -> Any:
        return replacement(partial(original, self), *args, **kwargs)

    # Python looks special methods such as __call__ up in the class only: an attribute of the instance would not do.
    module.__class__ = type(cls.__name__, (cls,), {method: substitute})
    try:
        yield
    finally:
        module.__class__ = cls


@contextmanager
def dropout_off(model: Module) -> Iterator[None]:
    """Inside, no dropout of ``model`` draws: what is traced leaves the global random state alone."""
    active = [m for m in model.modules() if isinstance(m, _DROPOUTS) and m.training]
    for module in active:
        module._training = False
    try:
        yield
    finally:
        for module in active:
            module._training = True


def traced_calls(
    model: Any,
    shape: tuple[int, int],
    seen: ContextVar[list[_Call] | None],
    inside: Callable[[], AbstractContextManager[object]],
) -> list[_Call]:
    """What a substitute appends to ``seen`` in a forward pass on a micro-batch of ``shape``; nothing is computed.

    ``inside`` puts the substitute in place. A model that cannot be traced like this has no calls.
    """
    calls: list[_Call] = []
    token = seen.set(calls)
    try:
        with inside(), dropout_off(model):
            model(mx.zeros(shape, mx.int32))
    except Exception:  # noqa: BLE001 a model may be too unusual to be traced like this
        return []
    finally:
        seen.reset(token)
    return calls
