"""The kernels that MLX keeps, and the CPU time of child processes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlxsched.platform.kernels import built_kernels, children_seconds


def test_a_child_that_ended_is_counted() -> None:
    before = children_seconds()
    subprocess.run([sys.executable, "-S", "-c", "sum(range(10**6))"], check=True)
    assert before < children_seconds() < before + 60


def test_a_fused_function_leaves_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert built_kernels() == 0
    code = "import mlx.core as mx; mx.set_default_device(mx.cpu); mx.eval(mx.compile(lambda x: mx.exp(x) * x + 1)(mx.ones(4)))"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    )
    assert built_kernels() == 1
