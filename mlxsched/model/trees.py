"""MLX's trees of arrays, with types: ``{"layers": [{"weight": ...}]}`` and back from ``{"layers.0.weight": ...}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

Tensors = dict[str, mx.array]


def flatten(tree: Any) -> Tensors:
    """The arrays of ``tree`` by path."""
    leaves: Any = tree_flatten(tree)
    return dict(leaves)


def unflatten(tensors: Mapping[str, mx.array]) -> Any:
    """The tree whose arrays are ``tensors``; an empty one is ``{}``."""
    return tree_unflatten(list(tensors.items())) if tensors else {}


def n_bytes(tree: Any) -> int:
    """Bytes of all arrays of ``tree``."""
    return sum(value.nbytes for value in flatten(tree).values())


def global_norm(tree: Any) -> mx.array:
    """The Euclidean norm over all arrays of ``tree``, in float32."""
    squares = [value.astype(mx.float32).square().sum() for value in flatten(tree).values()]
    return mx.sqrt(mx.stack(squares).sum())
