"""The forward paths of a run: what its config and plan ask for, checked, with the stores that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module

from mlxsched.data.batching.common_prefix import common_prefix
from mlxsched.data.batching.grid import length_grid
from mlxsched.data.batching.plan import MAX_PACK_WIDTH, BatchingPlan, padded_plan
from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.data.rows import Rows
from mlxsched.model.fast.activation_files import SharedFolder
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.prefix_activations import ActivationStore, make_activations
from mlxsched.model.fast.selection import (
    PACKING,
    PREFIX,
    Note,
    choose_path,
    with_packing,
    with_shared_prefix,
)
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.fast.shared_check import SharedCheck
from mlxsched.model.loss import LossOptions
from mlxsched.model.trees import flatten
from mlxsched.platform.machine import RETRACING, keeps_compiled

if TYPE_CHECKING:
    from mlxsched.training.session import Session
    from mlxsched.training.tuning.tuner import Tuner


_SHARED_LEAST = (
    0.2  # of the tokens of rows that are evaluated: the check takes as long as a few micro-batches
)


@dataclass(frozen=True)
class Acceleration:
    """The forward paths of the training rows and of the validation rows."""

    training: ForwardPath
    validation: ForwardPath

    @property
    def measuring(self) -> ForwardPath:
        """The forward path of any other rows, such as the test split: nothing is stored or packed for them."""
        path = replace(
            self.training, boundary=None, activations=None, packing=None, options=self.training.options.bare
        )
        return path.without_gradients()

    def describe(self) -> dict[str, dict[str, Any]]:
        """Plain data for ``run.json``, each as `ForwardPath.describe` gives it."""
        return {"training": self.training.describe(), "validation": self.validation.describe()}


def accelerate(
    session: Session,
    directory: Path | None,
    note: Note,
    store: ActivationStore | None = None,
    tuner: Tuner | None = None,
) -> Acceleration:
    """The fastest forward paths that the self-check passes.

    Activations go into ``store``; by default into memory, and if they don't fit there, into the session's folder for them or
    else into ``directory``. ``tuner`` selects other paths if they are faster on this device.
    ``note`` receives why an optimization is not used. The validation loss has neither label smoothing nor z-loss:
    these only regularize the training.
    """
    config, plan = session.config, session.plan
    if not keeps_compiled():
        note(RETRACING)
    path = replace(training_path(session, note, tuner), scaled=_has_float16(session.loaded.model))
    store = store or ActivationStore(config.prefix_cache, directory, _shared(session, note))

    training = path
    if plan.updates <= plan.updates_per_epoch:  # no row comes twice
        training = replace(path, boundary=None)
    stored = partial(_with_activations, session, store=store, note=note)
    training = stored(training, session.train_rows, lambda: _first_epoch(session, path))
    valid = session.dataset.valid
    if not valid:
        return Acceleration(training, training)
    # Validation rows are sorted by length all at once, which leaves packing nothing to gain.
    path = replace(_sharing(session, path, valid, note), packing=None, options=path.options.bare)
    limit = None if config.val_batches < 0 else config.val_batches * config.batch_size
    if plan.updates < plan.steps_per_eval or limit == 0:  # evaluated once at most
        path = replace(path, boundary=None)
    groups = lambda: RowGroups.by_length(valid.lengths[:limit], session.micro_batch_tokens)  # noqa: E731
    return Acceleration(training, stored(path, valid, groups).without_gradients())


def batching_of(session: Session, path: ForwardPath) -> BatchingPlan:
    """How the rows of an update become micro-batches along ``path``."""
    plan = session.batching
    if plan.packing is not None and path.packing is None:  # the self-check switched packing off
        plan = padded_plan(session.own_sampler, plan.max_tokens)
    return plan if path.form is not None else replace(plan, sharing=None)


def _first_epoch(session: Session, path: ForwardPath) -> RowGroups:
    """The groups in which the activations of the training rows are computed; packed lines are computed row by row."""
    plan, sampler = batching_of(session, path), session.sampler
    grid = plan.grid if plan.packing is None else length_grid(sampler.lengths)
    return RowGroups.of_first_epoch(sampler, grid, plan.max_tokens, session.world.size)


def _sharing(session: Session, path: ForwardPath, rows: Rows, note: Note) -> ForwardPath:
    """``path`` for ``rows`` that are evaluated, which share a prefix or have stored activations, whichever saves more."""
    if path.form is not None or not session.config.shares_prompts:
        return path
    frozen = path.boundary.below / len(list(session.loaded.model.layers)) if path.boundary else 0.0
    if _shared_share(rows) <= max(frozen, _SHARED_LEAST):
        return path
    check = SharedCheck(session.loaded.model, rows, gradients=False)
    return with_shared_prefix(check, path, note)


def _shared_share(rows: Rows) -> float:
    """The share of the tokens of ``rows`` that repeat a prefix common to all of them."""
    shared = common_prefix(rows, np.arange(len(rows)))
    return (len(rows) - 1) * shared / max(int(rows.lengths.sum()), 1)


def _has_float16(model: Module) -> bool:
    return any(value.dtype == mx.float16 for value in flatten(model.parameters()).values())


def training_path(session: Session, note: Note, tuner: Tuner | None = None) -> ForwardPath:
    """The fastest path of the training rows that the self-check passes, without any stored activations."""
    config, model, rows = session.config, session.loaded.model, session.train_rows
    options = LossOptions(config.label_smoothing, config.z_loss)
    checkpoint = config.checkpoint_every if config.grad_checkpoint else 0
    if not config.fast:
        return ForwardPath(checkpoint=checkpoint, options=options)
    check = SelfCheck(model, rows, options)
    prefix = config.prefix_cache > 0
    path = choose_path(check, note, prefix=prefix, checkpoint=checkpoint, without=config.left_out)
    path = tuner.path(check, path, note) if tuner else path
    if session.batching.sharing is not None:
        path = with_shared_prefix(SharedCheck(model, rows, options), path, note)
    packing = session.batching.packing
    if packing is not None:
        check = SelfCheck(model, rows, options, packing=packing)
        packed = with_packing(check, path, packing, note)
        return tuner.batching(path, packed) if tuner else packed
    if config.packing:
        note(f"{PACKING}: not used, every row is longer than {MAX_PACK_WIDTH} tokens")
    return path


def _shared(session: Session, note: Note) -> SharedFolder | None:
    if session.cache is None:
        return None
    return SharedFolder(session.cache / "prefix", session.loaded.name, session.loaded.config, note)


def _with_activations(
    session: Session,
    path: ForwardPath,
    rows: Rows,
    groups: Callable[[], RowGroups],
    *,
    store: ActivationStore,
    note: Note,
) -> ForwardPath:
    """``path`` with stored activations of the first of ``rows``, in ``groups``; without a boundary where they don't fit."""
    boundary = path.frozen_boundary
    if boundary is None:
        return path
    activations = make_activations(
        session.loaded.model, boundary, rows, store, groups=groups(), compiled=path.compiled
    )
    if activations is None:
        note(f"{PREFIX}: not stored for {len(rows)} rows, there is no room for them")
        return replace(path, boundary=None)
    return replace(path, activations=activations)


def evaluation_path(
    model: Module, rows: Rows, note: Note = lambda text: None, *, shared: bool = True
) -> ForwardPath:
    """The fastest forward path for rows that are evaluated once; ``shared``: they may share a prefix."""
    path = choose_path(SelfCheck(model, rows, gradients=False), note)
    if shared and _shared_share(rows) > _SHARED_LEAST:
        path = with_shared_prefix(SharedCheck(model, rows, gradients=False), path, note)
    return path.without_gradients()
