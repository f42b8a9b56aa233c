"""The kernels of MLX's CPU backend, and the cost of building them.

MLX starts a compiler for each fused kernel that no earlier process left in the folder of temporary files: about 40 before the
first update of a run, 1.2 CPU seconds each on a busy machine (`python benchmarks/startup.py --cold`). The run itself
needs all but four of them, although most are built during the self-check, which comes first.
"""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path


def kernel_folder() -> Path:
    """Where MLX keeps the kernels of all versions; it may not exist."""
    return Path(tempfile.gettempdir()) / "mlx"


def built_kernels() -> int:
    """How many kernels earlier processes have left, of all versions of MLX."""
    return sum(1 for _ in kernel_folder().glob("*/cpu/*.so"))


def children_seconds() -> float:
    """CPU seconds (user and system) of all child processes of this one that have ended, such as compilers."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
