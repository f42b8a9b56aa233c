"""How many tokens rows begin with in common."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.rows import Indices, Rows


def common_length(a: NDArray[Any], b: NDArray[Any]) -> int:
    """How many tokens ``a`` and ``b`` begin with in common.

    >>> common_length(np.array([1, 2, 3]), np.array([1, 2, 4, 5])), common_length(np.array([1]), np.array([1, 2]))
    (2, 1)
    """
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def shareable(common: int, shortest: int) -> int:
    """The inputs that rows can share whose first ``common`` tokens are the same, the shortest of ``shortest`` tokens.

    The label behind the last of them has to be common as well, and each row keeps at least one input of its own.
    """
    return max(min(common - 1, shortest - 2), 0)


def common_prefix(rows: Rows, indices: Indices) -> int:
    """The inputs that all of the rows ``indices`` share."""
    first, *others = indices
    tokens = rows[int(first)].tokens
    common = len(tokens)
    for index in others:
        if common < 2:
            break
        common = min(common, common_length(tokens[:common], rows[int(index)].tokens))
    return shareable(common, int(rows.lengths[indices].min()))
