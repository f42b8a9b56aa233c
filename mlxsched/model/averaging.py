"""Weighted means of adapters: of their factors, or of the products of the factors.

LoRA adds ``scale * A @ B`` to a weight, so the mean of two adapters can mean two things. The mean of the factors,
``mean(A) @ mean(B)``, needs a sum of each tensor. The mean of the products, ``mean(A @ B)``, equals the average of the
fused weights; with k adapters its rank is up to k times theirs, so it is truncated to their rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlxsched.model.trees import Tensors

Matrix = NDArray[np.float64]


def mean_of_factors(points: Sequence[Tensors], weights: Sequence[float]) -> Tensors:
    """``sum_j weights[j] * points[j]``, tensor by tensor.

    Sums are made in float32 and returned in the precision of the points. The weights should add up to 1.

    >>> one, two = {"a": mx.array([0.0, 2.0])}, {"a": mx.array([1.0, 4.0])}
    >>> mean_of_factors([one, two], [0.25, 0.75])["a"].tolist()
    [0.75, 3.5]
    """
    means = {}
    for path, first in points[0].items():
        total = sum(
            weight * point[path].astype(mx.float32) for weight, point in zip(weights, points, strict=True)
        )
        means[path] = mx.array(total).astype(first.dtype)
    return means


def mean_of_products(points: Sequence[Tensors], weights: Sequence[float]) -> tuple[Tensors, float]:
    """Factors whose products are closest to ``sum_j weights[j] * A_j @ B_j``, and the error that cutting the rank makes.

    For each pair of matrices A (inputs, rank) and B (rank, outputs), the best approximation of that rank in the Frobenius
    norm (Eckart and Young, 1936), in float64. The error is relative: the norm of what was cut off divided by the norm
    of the mean, over all pairs together. Tensors that are not such a pair (DoRA's magnitudes, the experts of a mixture)
    get the mean of the factors.

    >>> a, b = mx.array([[1.0], [0.0]]), mx.array([[4.0, 0.0]])
    >>> means, error = mean_of_products([{"l.lora_a": a, "l.lora_b": b}, {"l.lora_a": -a, "l.lora_b": -b}], [0.5, 0.5])
    >>> (means["l.lora_a"] @ means["l.lora_b"]).tolist(), round(error, 6)  # the mean of the factors would be 0
    ([[4.0, 0.0], [0.0, 0.0]], 0.0)
    """
    means = mean_of_factors(points, weights)
    cut = whole = 0.0
    for a, b in _pairs(points[0]):
        stacked = [_float64(point[a]) * weight for point, weight in zip(points, weights, strict=True)]
        left, values, right = _product_svd(stacked, [_float64(point[b]) for point in points])
        rank = points[0][a].shape[1]
        root = np.sqrt(values[:rank])
        means[a] = mx.array(left[:, :rank] * root).astype(points[0][a].dtype)
        means[b] = mx.array(root[:, None] * right[:rank]).astype(points[0][b].dtype)
        cut += float((values[rank:] ** 2).sum())
        whole += float((values**2).sum())
    return means, (cut / whole) ** 0.5 if whole else 0.0


def _product_svd(a: Sequence[Matrix], b: Sequence[Matrix]) -> tuple[Matrix, Matrix, Matrix]:
    """The singular value decomposition of ``sum_j a[j] @ b[j]``.

    The sum is never made: it is as large as the layer's weight. The factors side by side have k * rank columns, and two
    QR decompositions leave a square matrix of that size.
    """
    first, second = np.linalg.qr(np.hstack(a)), np.linalg.qr(np.vstack(b).T)
    left, values, right = np.linalg.svd(first.R @ second.R.T)
    return first.Q @ left, values, right @ second.Q.T


def _pairs(tensors: Tensors) -> Iterator[tuple[str, str]]:
    """The paths of A and B of each LoRA."""
    for path, value in tensors.items():
        other = path.removesuffix("lora_a") + "lora_b"
        if path.endswith("lora_a") and value.ndim == 2 and other in tensors:
            yield path, other


def _float64(value: mx.array) -> Matrix:
    exact: Any = np.array(value.astype(mx.float32))
    return np.asarray(exact, dtype=np.float64)
