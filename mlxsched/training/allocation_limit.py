"""How far MLX allocates ahead of the operation that it computes.

On a CPU, MLX 0.32.4 queues up to about 100 operations and allocates their results at once. Where layers are recomputed,
that is about a third of the peak. If more memory is in use than `mx.set_memory_limit` allows, MLX waits for results before it
allocates more. The results are the same to the last bit. Waiting for the last task of the queue takes CPU time, but no
wall-clock time if a second core is free.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx

_lock = threading.Lock()
_before: list[int] = []  # for each thread inside, MLX's limit when it entered


@contextmanager
def limited_allocation(limit: int | None) -> Iterator[None]:
    """Inside, MLX waits for results when more than ``limit`` bytes are in use; None leaves its own limit."""
    if limit is None:
        yield
        return
    with _lock:
        _before.append(mx.set_memory_limit(limit))
    try:
        yield
    finally:
        with _lock:
            outer = _before.pop()
            if not _before:
                mx.set_memory_limit(outer)
