"""Attention over keys in parts, compared with MLX's over copies of the shared keys."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model.fast.attention import KEPT, Blocks, in_blocks
from mlxsched.model.fast.growing_cache import GrowingCache, parts_of_joined
from mlxsched.model.fast.parted_attention import Keys, attention

ROWS, BEFORE, LENGTH, WIDTH, SCALE = 3, 21, 40, 8, 0.4


@pytest.fixture
def arrays():
    """Queries of four heads; keys and values of two heads, with one row for those of the shared prefix."""
    sizes = [(ROWS, 4, LENGTH), *[(1, 2, BEFORE)] * 2, *[(ROWS, 2, LENGTH)] * 2]
    keys = mx.random.split(mx.random.key(0), len(sizes))
    return [mx.random.normal((*size, WIDTH), key=key) for size, key in zip(sizes, keys, strict=True)]


def parted(queries, keys_before, values_before, keys, values):
    return attention(queries, [Keys(keys_before, values_before), Keys(keys, values)], SCALE)


def joined(queries, keys_before, values_before, keys, values):
    """As a model calls it behind a cache."""
    cache = GrowingCache()
    cache.update_and_fetch(keys_before, values_before)
    both = cache.update_and_fetch(keys, values)
    return mx.fast.scaled_dot_product_attention(queries, *both, scale=SCALE, mask="causal")


def results(attend, arrays):
    above = mx.random.normal((ROWS, 4, LENGTH, WIDTH), key=mx.random.key(1))
    loss = lambda *given: (attend(*given) * above).sum()  # noqa: E731
    return [attend(*arrays), *mx.grad(loss, argnums=tuple(range(5)))(*arrays)]


@pytest.mark.parametrize("blocks", [None, KEPT, Blocks(16), Blocks(16, kept=False)])
def test_values_and_gradients_are_those_of_whole_attention(arrays, blocks):
    expected = results(joined, arrays)
    with in_blocks(blocks):
        got = results(parted if blocks is None else joined, arrays)
    for mine, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_half_precision_is_left_to_mlx(arrays):
    half = [array.astype(mx.bfloat16) for array in arrays]
    with in_blocks(Blocks(16)):
        got = results(joined, half)
    for mine, other in zip(got, results(joined, half), strict=True):
        assert mine.dtype == mx.bfloat16
        apart = mx.linalg.norm((mine - other).astype(mx.float32))
        assert apart < 0.02 * mx.linalg.norm(other.astype(mx.float32))


def test_the_keys_of_a_shared_prefix_are_not_copied(arrays):
    with in_blocks(KEPT):
        cache = GrowingCache()
        cache.update_and_fetch(*arrays[1:3])
        both = cache.update_and_fetch(*arrays[3:])
        shared, own = parts_of_joined(*both)
        assert parts_of_joined(*arrays[3:]) is None
    assert shared.keys is arrays[1] and own.values is arrays[4]
    assert both[0].shape == (ROWS, 2, BEFORE + LENGTH, WIDTH)
    assert parts_of_joined(*both) is None  # no arrays are kept afterwards


def test_a_number_that_is_not_finite_reaches_the_result(arrays):
    """An update with such a loss is not applied."""
    for broken in range(5):
        given = [
            mx.where(mx.arange(WIDTH) == 3, mx.nan, a) if n == broken else a for n, a in enumerate(arrays)
        ]
        assert mx.isnan(parted(*given)).any().item()


def test_large_scores_neither_overflow_nor_vanish(arrays):
    queries, *rest = arrays
    got = parted(1e4 * queries, *rest)
    np.testing.assert_allclose(got, joined(1e4 * queries, *rest), rtol=1e-4, atol=1e-5)
