"""The closed form of the memory peak: what it must follow, whatever its factors are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlxsched.planning.memory_model import ModelShape, Workload, peak_above_weights

SHAPE = ModelShape(hidden=576, intermediate=1536, heads=9, queries=576, keys=192, vocabulary=49152)
WORKLOAD = Workload(trained=15, trained_bytes=5_000_000, chunk=64)
BATCH = {"rows": 4, "length": 256, "targets": 384}


def peak(workload: Workload = WORKLOAD, shape: ModelShape = SHAPE, **batch: int) -> int:
    return peak_above_weights(shape, workload, **{**BATCH, **batch})


@pytest.mark.parametrize(
    "less",
    [
        replace(WORKLOAD, trained=7),
        replace(WORKLOAD, checkpoint=1),
        replace(WORKLOAD, checkpoint=3),
        replace(WORKLOAD, trained_bytes=1_000_000),
        replace(WORKLOAD, width=2),
    ],
)
def test_each_saving_lowers_the_peak(less):
    assert peak(less) < peak()


def test_each_saving_at_the_head_lowers_the_peak():
    whole = peak(replace(WORKLOAD, gathered=False, chunk=None))
    gathered = peak(replace(WORKLOAD, chunk=None))
    assert peak() < gathered < whole
    # All positions' logits and their gradient: at least two arrays of float32.
    assert whole - peak() > 4 * 4 * 256 * 49152


def test_more_layers_between_checkpoints_keep_more():
    peaks = [peak(replace(WORKLOAD, checkpoint=every)) for every in (1, 2, 4)]
    assert peaks == sorted(peaks)


def test_a_limit_lowers_what_is_in_flight_and_not_what_is_kept_or_trained():
    lean = replace(WORKLOAD, checkpoint=1)
    kept = 15 * 4 * 256 * 576 * 4 + 1.78 * lean.trained_bytes  # the inputs of 15 layers
    assert peak(replace(lean, limited=True)) - kept == pytest.approx(0.84 * (peak(lean) - kept))
    huge = replace(lean, trained_bytes=10**9)
    assert peak(replace(huge, limited=True)) == peak(huge)


def test_recomputed_layers_hold_a_shared_prompt_and_its_gradients():
    lean = replace(WORKLOAD, checkpoint=1)
    # Keys and values, the sums of their gradients and those of a micro-batch, each [512, keys] in 15 layers.
    assert peak(replace(lean, held=512)) - peak(lean) == 15 * 6 * 512 * 192 * 4


def test_long_rows_cost_more_than_short_ones_of_as_many_tokens():
    scores = peak(rows=1, length=1024) - peak(rows=4, length=256)
    # 15 layers keep the attention's scores: heads * (1024^2 - 4 * 256^2) floats, more than once.
    assert scores > 15 * 4 * 9 * (1024**2 - 4 * 256**2)


def test_a_chunk_bounds_the_head_however_many_targets():
    assert peak(targets=300) == peak(targets=1000)


def test_full_training_is_bounded_by_its_optimizer():
    huge = replace(WORKLOAD, trained_bytes=10**9)
    assert peak(huge) == peak(huge, rows=1, length=16)
    assert 6e9 < peak(huge) < 9e9  # weights and moments, old and new, and gradients


def test_shapes_are_read_from_a_config():
    shape = ModelShape.of(
        {
            "text_config": {"hidden_size": 1024, "vocab_size": 151936, "head_dim": 128},
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "intermediate_size": 3072,
        }
    )
    assert shape == ModelShape(1024, 3072, 16, 2048, 1024, 151936)


def test_a_mixture_of_experts_counts_those_that_a_token_goes_through():
    config = {
        "hidden_size": 64,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
        "intermediate_size": 999,
    }
    assert ModelShape.of(config).intermediate == 96
