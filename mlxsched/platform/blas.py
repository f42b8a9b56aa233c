"""A fast BLAS for MLX on Linux.

The CPU wheel of MLX ships the reference BLAS, about 1 GFLOP/s for a float32 matrix product on a core that can
do 50 to 100. Its symbols are looked up globally, so an OpenBLAS that is already in the process wins.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0")  # Fedora's name of the threaded one, everybody else's

ADVICE = (
    "MLX is using the reference BLAS, which is 10 to 50 times slower than OpenBLAS. Install OpenBLAS:\n"
    "  Debian, Ubuntu: apt-get install libopenblas0-pthread\n"
    "  Fedora: dnf install openblas-threads; Arch: pacman -S openblas"
)


def preload() -> bool:
    """Load the system's OpenBLAS for MLX to find, and say whether that was done.

    Does nothing off Linux, where the library is missing, when MLX is already imported (too late then), or when
    the environment sets ``MLXSCHED_NO_OPENBLAS``. Call it before the first import of ``mlx.core``.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules or os.environ.get("MLXSCHED_NO_OPENBLAS"):
        return False
    return any(map(_load, LIBRARIES))


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def blas_in_use() -> str:
    """Return ``"accelerate"``, ``"openblas"`` or ``"reference"``: what MLX multiplies matrices with on the CPU."""
    if sys.platform == "darwin":
        return "accelerate"
    try:
        multiply = ctypes.CDLL(None).cblas_sgemm
    except AttributeError:  # no BLAS has global symbols, so MLX finds the one it came with
        return "reference"
    library = _library_of(ctypes.cast(multiply, ctypes.c_void_p).value or 0)
    return "openblas" if "openblas" in library else "reference"


def _library_of(address: int) -> str:
    """Return the path of the file mapped at ``address``, or an empty string."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        span, *rest = line.split(maxsplit=5)
        start, end = (int(part, 16) for part in span.split("-"))
        if start <= address < end:
            return rest[-1] if len(rest) == 5 else ""
    return ""
