"""The machine: versions, device, memory, cores, and the speed of a matrix product."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from mlxsched.platform.blas import blas_in_use, library_in_use, preload

PACKAGES = (
    "mlxsched", "mlx", "mlx-cpu", "mlx-cuda-12", "mlx-cuda-13", "mlx-metal", "mlx-lm", "numpy", "transformers",
)  # fmt: skip

BACKENDS = ("ring", "jaccl", "nccl", "mpi")  # of mx.distributed


@dataclass(frozen=True)
class Machine:
    """What `mlxsched env` shows and a run records; ``versions`` lists the installed packages that matter."""

    system: str
    device: str  # what MLX computes on: "gpu" or "cpu"
    chip: str
    cores: int
    memory_gb: float
    gpu_memory_gb: float | None  # see `gpu_memory`
    blas: str  # see `blas_in_use`
    blas_library: str  # see `library_in_use`
    distributed: tuple[str, ...]  # MLX's backends for several workers that work here
    versions: dict[str, str]


def describe() -> Machine:
    """A description of this machine; imports mlx."""
    preload()
    import mlx.core as mx

    memory = gpu_memory()
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        device=mx.default_device().type.name,
        chip=str(mx.device_info().get("device_name", "unknown")),
        cores=cores(),
        memory_gb=round(total_memory() / 1e9, 1),
        gpu_memory_gb=round(memory / 1e9, 1) if memory else None,
        blas=blas_in_use(),
        blas_library=library_in_use(),
        distributed=tuple(backend for backend in BACKENDS if mx.distributed.is_available(backend)),
        versions=versions(),
    )


def total_memory() -> int:
    """The memory of the machine in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def gpu_memory() -> int | None:
    """The bytes that Metal recommends to stay below, or the memory of a CUDA GPU; None on a CPU."""
    preload()
    import mlx.core as mx

    if mx.default_device().type == mx.DeviceType.cpu:
        return None
    info = mx.device_info()
    recommended = info.get("max_recommended_working_set_size") or info.get("total_memory")
    return int(recommended) if recommended else None


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide what a run computes."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def matmul_gflops(size: int | None = None, seconds: float = 0.2) -> float:
    """Measure the speed of ``x @ w.T`` in float32, in GFLOP/s, for about ``seconds``."""
    preload()
    import mlx.core as mx

    if size is None:
        size = 512 if mx.default_device() == mx.Device(mx.cpu) else 2048
    x, w = mx.random.normal((size, size)), mx.random.normal((size, size))
    mx.eval(x @ w.T)  # allocates memory and compiles a GPU's kernel
    start, products = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        mx.eval(x @ w.T)
        products += 1
    return products * 2 * size**3 / (time.perf_counter() - start) / 1e9


RETRACING = (
    "MLX recompiles each step on every call with this Python, which makes short updates slow. "
    "Use another version of Python or of MLX"
)


def keeps_compiled() -> bool:
    """Whether `mx.compile` keeps what it has compiled; mlx 0.32.4 with Python 3.14 traces at every call."""
    preload()
    import mlx.core as mx

    traces = []

    def double(x: mx.array) -> mx.array:
        traces.append(1)
        return x * 2

    compiled, x = mx.compile(double), mx.array(1.0)
    for _ in range(3):
        compiled(x)
    # Where nothing was evaluated before, MLX traces the second call as well.
    return len(traces) < 3


def cores() -> int:
    """The cores that this process may use; macOS does not say, so there it is all of them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
