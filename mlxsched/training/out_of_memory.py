"""Running out of memory, as the user should see it."""

from __future__ import annotations

import re

from mlxsched.errors import RunError

# How MLX's allocators for the CPU, Metal and CUDA say it: "[malloc] Unable to allocate 8 bytes.", "[metal::malloc]
# Attempting to allocate ...", "[METAL] Command buffer execution failed: Insufficient Memory (...)", "out of memory".
_NO_MEMORY = re.compile(r"\bmalloc|unable to allocate|bad_alloc|insufficient memory|out of memory", re.I)


def out_of_memory(error: Exception, then: str) -> RunError | None:
    """``error`` as the user should see it if memory ran out, with what to do ``then``; None if it is something else."""
    if not isinstance(error, MemoryError) and not (
        isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error))
    ):
        return None
    return RunError(
        f"out of memory: {str(error)[:200]}\nLower --micro-batch-tokens (the result stays the same) or "
        f"--max-seq-length, or use a quantized model; then: {then}"
    )
