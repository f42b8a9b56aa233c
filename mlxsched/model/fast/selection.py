"""Selects the optimizations of a run: all that the self-check finds right for the model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, TypeVar

from mlxsched.data.batching.packing import Packing
from mlxsched.model.fast.attention import blocks_for
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.frozen_prefix import NothingFrozen, find_boundary
from mlxsched.model.fast.head import find_head
from mlxsched.model.fast.patching import NotApplicable
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.fast.shared_check import SharedCheck

Note = Callable[[str], None]
Found = TypeVar("Found")
_LOG = logging.getLogger(__name__)

HEAD, PREFIX, PACKING = "loss only at targets", "frozen-prefix activations", "sequence packing"
SHARED = "shared prompts"


def choose_path(
    check: SelfCheck,
    note: Note,
    *,
    prefix: bool = False,
    checkpoint: int = 0,
    without: Collection[str] = (),
) -> ForwardPath:
    """The fastest forward path that agrees with the plain one.

    ``prefix``: the outputs of frozen layers may be stored. ``checkpoint``: recompute every n-th layer, 0 for none. ``without``:
    names of optimizations to leave out (`mlxsched.config.schema.OPTIMIZATIONS`).
    ``note`` receives why an optimization is not used.
    """
    model = check.model
    at_targets = "loss-at-targets" not in without
    head = _find(lambda: find_head(model, check.inputs), HEAD, note) if at_targets else None
    chunked = head is not None and head.frozen and "chunks" not in without
    boundary = _find(lambda: find_boundary(model, check.inputs), PREFIX, note) if prefix else None
    full = ForwardPath(
        head=head,
        # A chunk's gradient to the head's weights is never computed, so only a frozen head can be chunked.
        chunk=chunk_rows(head.vocabulary, checkpoint) if head and chunked else None,
        boundary=boundary,
        checkpoint=checkpoint,
        blocks=None if "blocks" in without else blocks_for(checkpoint),
        compiled="compile" not in without,
        options=check.options,
    )
    # Nearly every model passes with all of them, so that is tried first: one check instead of six.
    return full if check.disagreement(full) is None else _one_by_one(check, full, note)


def with_packing(check: SelfCheck, path: ForwardPath, packing: Packing, note: Note) -> ForwardPath:
    """``path`` with packed lines, where that agrees with the plain path; ``check`` was made with ``packing``."""
    attempt = replace(path, packing=packing)
    # Stored activations would hide what the frozen layers make of packed lines, and there may be no room for them.
    reason = check.disagreement(replace(attempt, boundary=None))
    if reason is None and attempt.boundary is not None:
        reason = check.disagreement(attempt)
    if reason is None:
        return attempt
    note(f"{PACKING}: not used, {reason}")
    return path


def with_shared_prefix(check: SharedCheck, path: ForwardPath, note: Note) -> ForwardPath:
    """``path`` for rows that share a prefix, where that agrees with the plain path."""
    attempt = _find(lambda: check.with_form(path), SHARED, note)
    reason = check.disagreement(attempt) if attempt else None
    if attempt and reason and attempt.resumed:  # a model that runs a layer twice, for example
        attempt = replace(attempt, fixed=0, resumed=None)
        reason = check.disagreement(attempt)
    if attempt and reason is None:
        return attempt
    if reason:
        note(f"{SHARED}: not used, {reason}")
    return path


def _find(find: Callable[[], Found], what: str, note: Note) -> Found | None:
    try:
        return find()
    except NothingFrozen:
        return None  # common, and nothing is lost
    except NotApplicable as reason:
        note(f"{what}: not used, {reason}")
    except Exception:  # noqa: BLE001 a model may be too unusual to look into; it can still be trained
        _LOG.debug("%s", what, exc_info=True)
        note(f"{what}: not used, this model does not support it")
    return None


def _one_by_one(check: SelfCheck, full: ForwardPath, note: Note) -> ForwardPath:
    """Add one optimization after the other, leaving out those that disagree."""
    path = ForwardPath(options=full.options)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("compiled step", {"compiled": True}),
        (HEAD, {"head": full.head}),
        ("chunked cross-entropy", {"chunk": full.chunk}),
        ("attention in blocks", {"blocks": full.blocks}),
        (PREFIX, {"boundary": full.boundary}),
        ("gradient checkpointing", {"checkpoint": full.checkpoint}),
    ]
    for what, change in steps:
        attempt = replace(path, **change)
        if attempt == path or (attempt.chunk and not attempt.head):
            continue
        reason = check.disagreement(attempt)
        if reason is None:
            path = attempt
        else:
            note(f"{what}: not used, {reason}")
    return path
