from __future__ import annotations

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
