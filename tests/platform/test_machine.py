from __future__ import annotations

import subprocess
import sys

import mlx.core as mx
import pytest

from mlxsched.platform.machine import keeps_compiled


@pytest.fixture
def uncompiled():
    mx.disable_compile()
    yield
    mx.enable_compile()


def test_a_function_that_is_traced_at_every_call_is_noticed(uncompiled):
    assert not keeps_compiled()


def test_a_process_that_has_evaluated_nothing_yet_is_no_exception():
    """There, MLX 0.32.4 traces the first two calls, which is not every call."""
    code = "from mlxsched.platform.machine import keeps_compiled; print(keeps_compiled(), keeps_compiled())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    first, second = found.split()
    assert first == second
