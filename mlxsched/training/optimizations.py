"""Which short cuts a run takes, as plain data for those who read the run later."""

from __future__ import annotations

from typing import Any

from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.training.acceleration import Ways


def short_cuts(ways: Ways) -> dict[str, dict[str, Any]]:
    """The short cuts of the training rows and of the validation rows, each as `taken` has them."""
    return {"training": taken(ways.training.route), "validation": taken(ways.validation.route)}


def taken(route: ForwardPath) -> dict[str, Any]:
    """What ``route`` does instead of the plain path.

    ``loss_at_targets``: logits only where there are targets. ``chunk``: targets whose logits exist at once, None for
    all. ``frozen_states``: the outputs of the frozen layers are kept. ``checkpoint``: every so many-th layer is
    computed again in the backward pass, 0 for none. ``attention_blocks``: attention goes that many queries at a time,
    or more of long rows, None for all at once. ``compiled``: one graph for each shape. ``packed``: tokens of a
    line that holds several rows, None for a line a row.

    >>> from mlxsched.model.fast.forward_path import PLAIN
    >>> sum(map(bool, taken(PLAIN).values()))
    0
    """
    return {
        "loss_at_targets": route.head is not None,
        "chunk": route.chunk,
        "frozen_states": route.tap is not None,
        "checkpoint": route.checkpoint,
        "attention_blocks": None if route.blocks is None else route.blocks.least,
        "compiled": route.compiled,
        "packed": None if route.packing is None else route.packing.width,
    }
