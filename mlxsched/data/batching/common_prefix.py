"""The lengths of common prefixes of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlxsched.data.rows import Indices, Rows


def common_length(a: NDArray[Any], b: NDArray[Any]) -> int:
    """The length of the common prefix of ``a`` and ``b``.

    >>> common_length(np.array([1, 2, 3]), np.array([1, 2, 4, 5])), common_length(np.array([1]), np.array([1, 2]))
    (2, 1)
    """
    length = min(len(a), len(b))
    differ = np.flatnonzero(a[:length] != b[:length])
    return int(differ[0]) if len(differ) else length


def shareable(common: int, shortest: int) -> int:
    """The number of inputs that rows with ``common`` equal first tokens can share; the shortest row has ``shortest``
    tokens.

    The label of the last shared input must be equal as well, and each row keeps at least one input of its own.
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
