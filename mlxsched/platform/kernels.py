"""The kernels of MLX's CPU backend, and the cost of building them.

MLX starts a compiler for each fused kernel that no earlier process left in the directory for temporary files: about 40 before
the first update of a run (`python benchmarks/startup.py --cold`). All kernels include the same header, and parsing it takes
most of the time: a kernel takes 1.0 CPU seconds, or 0.2 with a precompiled header.
"""

from __future__ import annotations

import atexit
import contextlib
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = "mlx/backend/cpu/compiled_preamble.h"
OFF = "MLXSCHED_NO_PRECOMPILED_HEADER"
# Bytes that must be free in the directory for temporary files, which may be in memory. The precompiled header takes 50 MB.
LEAST_FREE = 10**9

# MLX's own options for a kernel (mlx 0.32.4). g++ ignores a header precompiled with other options or by another g++.
_COMPILER = ("g++", "-std=c++17", "-O3", "-Wall", "-fPIC", "-shared")
# The shell renames a finished file, so the header is complete or missing, even if this process ends first. The unfinished one
# lies outside the folder of the finished ones, because g++ tries every file in that folder.
_SCRIPT = 'target=$1; shift; "$@" -o "$0.$$" && mv "$0.$$" "$target" || rm -f "$0.$$"'


def kernel_folder() -> Path:
    """Where MLX keeps the kernels of all versions; it may not exist."""
    return Path(tempfile.gettempdir()) / "mlx"


def built_kernels() -> int:
    """How many kernels earlier processes have left, of all versions of MLX."""
    return sum(1 for _ in kernel_folder().glob("*/cpu/*.so")) + _built_for_cuda()


def _built_for_cuda() -> int:
    chosen = os.environ.get("MLX_PTX_CACHE_DIR")
    folders = [Path(chosen)] if chosen else kernel_folder().glob("*/ptx")
    return sum(1 for folder in folders for _ in folder.glob("*.ptx"))


def building_so_far() -> tuple[float, int]:
    """A value that changes whenever MLX builds kernels: in a child process for the CPU, in this one for CUDA.

    Metal builds its kernels within this process too, and leaves nothing that could be counted.
    """
    return children_seconds(), _built_for_cuda()


def precompiled_header() -> Path | None:
    """Where g++ finds the precompiled header: it looks in the folder of a kernel's source before MLX's own folder.

    g++ tries all files in a folder of this name, and skips those that another g++ has made, so each g++ has one. None
    without g++.
    """
    from importlib.metadata import version

    compiler = shutil.which(_COMPILER[0])
    if compiler is None:
        return None
    file = Path(compiler).resolve()
    facts = file.stat()  # an update of g++ changes them; to ask for its version would take a process
    folder = kernel_folder() / version("mlx") / "cpu" / f"{HEADER}.gch"
    return folder / f"{file.name}-{facts.st_size:x}-{facts.st_mtime_ns:x}"


def precompile_header() -> subprocess.Popen[bytes] | None:
    """Precompile the header of MLX's kernels in the background, unless that was done; returns the process, if any.

    The kernels don't change: g++ reads the header in another form. It takes 2.4 CPU seconds once per machine and
    version of MLX and g++, and 50 MB next to the kernels. Does nothing on a GPU, on systems other than Linux, with
    less than 1 GB free, for a version of MLX whose kernels don't include the header (such as 0.32.2), or when the
    environment sets ``MLXSCHED_NO_PRECOMPILED_HEADER``.
    """
    if sys.platform != "linux" or os.environ.get(OFF):
        return None
    import mlx.core as mx

    package, target = Path(mx.__file__).parent, precompiled_header()
    if mx.default_device().type != mx.DeviceType.cpu or target is None or not _is_wanted(target, package):
        return None
    with contextlib.suppress(OSError):  # no shell, or no more processes
        return _start(target, package / "include")
    return None


def _is_wanted(target: Path, package: Path) -> bool:
    """Whether ``target`` is missing, of use to the kernels of the MLX in ``package``, and can be written."""
    try:
        if target.exists() or not _is_included(package):
            return False
        if target.parent.is_file():
            target.parent.unlink()  # earlier versions of mlxsched wrote a file of this name, for any g++
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_unfinished(target.parent)
        return shutil.disk_usage(target.parent).free >= LEAST_FREE
    except OSError:  # another user's folder, for example: kernels are then built as without it
        return False


def _remove_unfinished(folder: Path) -> None:
    """Remove the unfinished headers of compilers that were killed: files next to ``folder``, named after it and a process."""
    for path in folder.parent.glob(f"{folder.name}.*"):
        number = path.suffix[1:]
        if number.isdecimal() and not _is_alive(int(number)):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _is_included(package: Path) -> bool:
    """Whether kernels include the header, according to the library; in older versions, sources contain its text."""
    library = package / "lib" / "libmlx.so"
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as text:
        return text.find(f'#include "{HEADER}"'.encode()) >= 0


def _start(target: Path, folder: Path) -> subprocess.Popen[bytes]:
    compiler = [*_COMPILER, "-I", str(folder), "-x", "c++-header", str(folder / HEADER)]
    process = subprocess.Popen(
        ["sh", "-c", _SCRIPT, str(target.parent), str(target), *compiler],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C ends this process, not the compiler, which would leave its file
    )
    atexit.register(process.poll)  # reaps it, so that its CPU time counts among the children of this process
    return process


def children_seconds() -> float:
    """CPU seconds (user and system) of all child processes of this one that have ended, such as compilers."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
