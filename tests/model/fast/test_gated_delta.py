"""The recurrence of gated delta nets by MLX's function, against mlx-lm's loop."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model.fast.candidates import DeltaPart, deltas
from mlxsched.model.fast.gated_delta import deltas_of, fused_gated_delta, recurrence
from mlxsched.model.fast.selection import choose_path
from mlxsched.model.fast.self_check import SelfCheck

gated_delta = pytest.importorskip("mlx_lm.models.gated_delta")
needs_function = pytest.mark.skipif(
    not hasattr(mx.fast, "gated_delta_update"), reason="an MLX without the function"
)
NEXT = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4, "full_attention_interval": 2, "num_experts": 0, "num_experts_per_tok": 1,
    "decoder_sparse_step": 1, "shared_expert_intermediate_size": 32, "mlp_only_layers": [], "moe_intermediate_size": 32,
    "partial_rotary_factor": 0.5,
}  # fmt: skip


@pytest.fixture
def model(build):
    return build("qwen3_next", **NEXT)


@needs_function
def test_values_and_gradients_are_those_of_the_loop():
    keys = [mx.random.key(number) for number in range(5)]
    q, k = (0.3 * mx.random.normal((2, 21, 2, 16), key=key) for key in keys[:2])
    v = mx.random.normal((2, 21, 4, 16), key=keys[2])
    g, beta = (mx.random.uniform(0.1, 0.9, (2, 21, 4), key=key) for key in keys[3:])

    def gradients(*arrays):
        return mx.value_and_grad(lambda *a: recurrence(list(a)).square().sum(), argnums=(0, 1, 2, 3, 4))(
            *arrays
        )

    value, expected = gradients(q, k, v, g, beta)
    calls = []
    original = mx.fast.gated_delta_update
    with pytest.MonkeyPatch.context() as patched, fused_gated_delta(True):
        patched.setattr(
            mx.fast, "gated_delta_update", lambda *a, **more: calls.append(1) or original(*a, **more)
        )
        fused_value, got = gradients(q, k, v, g, beta)
    assert calls and gated_delta.gated_delta_ops.__module__ == gated_delta.__name__
    np.testing.assert_allclose(fused_value, value, rtol=1e-6)
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)


@needs_function
def test_a_model_with_such_layers_has_a_candidate_that_agrees(model, make_rows):
    check = SelfCheck(model, make_rows())
    path = choose_path(check, lambda note: None)
    found = deltas(path)
    assert list(found) == ["token by token", "mx.fast"]
    assert found["mx.fast"].fused_delta and check.disagreement(found["mx.fast"]) is None
    assert len(deltas_of(model, (2, 9))) == 2
    DeltaPart(model).of(found["mx.fast"], (2, 9))()


@needs_function
def test_layers_that_are_recomputed_and_other_models_have_none(build, make_rows):
    plain = build()
    path = choose_path(SelfCheck(plain, make_rows()), lambda note: None)
    assert deltas_of(plain, (2, 9)) == []
    assert deltas(replace(path, checkpoint=1)) == {}
