"""OpenBLAS before MLX: each case in a process of its own, for a library that is loaded stays loaded."""

from __future__ import annotations

import ctypes.util
import os
import subprocess
import sys

import pytest

has_openblas = sys.platform == "linux" and ctypes.util.find_library("openblas") is not None
needs_openblas = pytest.mark.skipif(not has_openblas, reason="the system has no OpenBLAS")

REPORT = "from mlxsched.platform import blas; import mlx.core; print(blas.blas_in_use())"


def python(code: str, **variables: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.check_output(command, env=os.environ | variables, text=True).strip()


ONLY_SYSTEM = "from mlxsched.platform import blas; blas.openblas.renamed_copy = lambda: None"


@needs_openblas
def test_the_library_of_the_system_takes_the_place_of_one_that_cannot_be_made():
    code = f"import os; os.environ['MLXSCHED_NO_OPENBLAS'] = '1'; {ONLY_SYSTEM}; del os.environ['MLXSCHED_NO_OPENBLAS']; "
    report = python(
        code + "blas.preload(); import mlx.core; print(blas.blas_in_use(), blas.library_in_use())"
    )
    assert report.startswith("openblas /usr")


@needs_openblas
def test_importing_the_package_first_is_enough():
    assert python(f"import mlxsched; {REPORT}") == "openblas"


@needs_openblas
def test_the_switch_leaves_it_alone():
    assert python(f"import mlxsched; {REPORT}", MLXSCHED_NO_OPENBLAS="1") == "reference"


@needs_openblas
def test_after_mlx_it_is_too_late_and_nothing_is_loaded():
    code = "import mlx.core; from mlxsched.platform import blas; print(blas.preload(), blas.blas_in_use())"
    assert python(code) == "False reference"


@needs_openblas
def test_mlx_multiplies_much_faster_with_it():
    code = "import mlxsched; from mlxsched.platform.machine import matmul_gflops; print(matmul_gflops())"
    fast = float(python(code, OPENBLAS_NUM_THREADS="1"))
    slow = float(python(code, MLXSCHED_NO_OPENBLAS="1"))
    assert fast > 3 * slow


def test_a_system_without_the_library_is_no_error():
    code = (
        "import os; os.environ['MLXSCHED_NO_OPENBLAS'] = '1'; "
        f"{ONLY_SYSTEM}; blas.LIBRARIES = ('libnothing-of-the-kind.so.0',); "
        "del os.environ['MLXSCHED_NO_OPENBLAS']; print(blas.preload()); import mlx.core"
    )
    assert python(code) == "False"


THREADS = """
import ctypes
import mlxsched
from mlxsched.model.load import load_model
from mlxsched.platform import blas
load_model("tiny")
library = ctypes.CDLL(blas._file_in_use())
counts = [getattr(library, f"{prefix}openblas_get_num_threads", None) for prefix in ("", "scipy_")]
print(next(count for count in counts if count)())
"""


@needs_openblas
def test_a_small_model_multiplies_with_one_thread_unless_told_otherwise():
    assert python(THREADS, OPENBLAS_NUM_THREADS="") == "1"
    assert python(THREADS, OPENBLAS_NUM_THREADS="2") == "2"


def test_another_blas_is_not_told_how_many_threads():
    code = "from mlxsched.platform import blas; import mlx.core; print(blas.use_threads(1))"
    assert python(code, MLXSCHED_NO_OPENBLAS="1") == "False"
