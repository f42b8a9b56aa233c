"""A fast BLAS for MLX on Linux.

MLX's CPU wheel ships the reference BLAS, which multiplies float32 matrices at about 1 GFLOP/s on a core that can do 50 to
100. Its symbols are looked up globally, so an OpenBLAS that is already loaded takes precedence.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0")  # Fedora's threaded build; the name elsewhere

ADVICE = (
    "MLX is using the reference BLAS, which is 10 to 50 times slower than OpenBLAS. Install OpenBLAS:\n"
    "  Debian, Ubuntu: apt-get install libopenblas0-pthread\n"
    "  Fedora: dnf install openblas-threads; Arch: pacman -S openblas"
)


def preload() -> bool:
    """Load the system's OpenBLAS so that MLX uses it; returns whether it was loaded.

    Does nothing on other systems than Linux, when the library is missing, when MLX is already imported (it is too late
    then), or when the environment sets ``MLXSCHED_NO_OPENBLAS``. Call it before the first import of ``mlx.core``.
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
    """The BLAS that MLX uses on the CPU: ``"accelerate"``, ``"openblas"`` or ``"reference"``."""
    if sys.platform == "darwin":
        return "accelerate"
    try:
        multiply = ctypes.CDLL(None).cblas_sgemm
    except AttributeError:  # no BLAS has global symbols, so MLX uses its own
        return "reference"
    library = _library_of(ctypes.cast(multiply, ctypes.c_void_p).value or 0)
    return "openblas" if "openblas" in library else "reference"


def _library_of(address: int) -> str:
    """The path of the file that is mapped at ``address``, or an empty string."""
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
