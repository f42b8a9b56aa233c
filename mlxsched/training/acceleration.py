"""The short cuts of a run: what its config and plan ask for, checked, with the stores that they need."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlx.nn.layers.base import Module

from mlxsched.data.batching.plan import MAX_PACK_WIDTH
from mlxsched.data.rows import Rows
from mlxsched.model.fast.activation_files import SharedFolder
from mlxsched.model.fast.forward_path import ForwardPath, Way, bound
from mlxsched.model.fast.prefix_activations import PrefixActivations, Store, make_activations
from mlxsched.model.fast.self_check import Note, SelfCheck, Wanted, choose_path, packed_if_right
from mlxsched.model.loss import PLAIN_LOSS, LossOptions

if TYPE_CHECKING:
    from mlxsched.training.session import Session


@dataclass(frozen=True)
class Ways:
    """The ways of a run's training and validation rows through the model."""

    training: Way
    validation: Way


def ways_of_run(session: Session, directory: Path, note: Note) -> Ways:
    """The fastest ways that the self-check lets pass; states that memory can't hold go into the session's folder for
    them, or else into ``directory``.

    The validation loss is the plain one: label smoothing and z-loss are means, not ends.
    """
    config, plan, model = session.config, session.plan, session.loaded.model
    options = LossOptions(config.label_smoothing, config.z_loss)
    checkpoint = config.checkpoint_every if config.grad_checkpoint else 0
    route = ForwardPath(checkpoint=checkpoint)
    if config.fast:
        check = SelfCheck(model, session.train_rows, options)
        wanted = Wanted(prefix=config.prefix_cache > 0, checkpoint=checkpoint)
        route = choose_path(check, model, wanted, note)
        route = _packed(session, route, options, note)
    store = Store(config.prefix_cache, directory, _shared(session, note))
    make = partial(_way, model, route, session.micro_batch_tokens, store, note)
    again = plan.updates > plan.updates_per_epoch
    training = make(session.train_rows, again=again, options=options)
    valid, limit = session.dataset.valid, None
    if config.val_batches >= 0:
        limit = config.val_batches * config.batch_size
    again = plan.updates >= plan.steps_per_eval
    # Validation rows are sorted by length all at once, which leaves packing nothing to gain.
    make = partial(_way, model, replace(route, packing=None), session.micro_batch_tokens, store, note)
    validation = make(valid, again=again, limit=limit, differentiable=False) if valid else training
    return Ways(training, validation)


def _shared(session: Session, note: Note) -> SharedFolder | None:
    if session.states_dir is None:
        return None
    return SharedFolder(session.states_dir, session.loaded.name, session.loaded.config, note)


def _packed(session: Session, route: ForwardPath, options: LossOptions, note: Note) -> ForwardPath:
    """``route`` with several rows in a line, where that is planned, and right."""
    packing = session.cut.packing
    if packing is None:
        if session.config.packing:
            note(f"several rows in a line: not used, no row fits into one of {MAX_PACK_WIDTH} tokens")
        return route
    check = SelfCheck(session.loaded.model, session.train_rows, options, packing=packing)
    return packed_if_right(check, route, packing, note)


def _way(
    model: Module,
    route: ForwardPath,
    max_tokens: int,
    store: Store,
    note: Note,
    rows: Rows,
    *,
    again: bool,
    options: LossOptions = PLAIN_LOSS,
    limit: int | None = None,
    differentiable: bool = True,
) -> Way:
    """The way of ``rows``; states are kept only for rows that come ``again``."""
    states: PrefixActivations | None = None
    if route.source is not None and again and limit != 0:
        states = make_activations(
            model, route.source, rows, store, max_tokens=max_tokens, limit=limit, compiled=route.compiled
        )
        if states is None:
            note(f"states of frozen layers: not kept for {len(rows)} rows, there is no room for them")
    if states is None:
        route = replace(route, tap=None)
    return bound(route, states, options, differentiable)


def way_to_measure(model: Module, rows: Rows, note: Note = lambda text: None) -> Way:
    """The way of rows that are only measured, once."""
    check = SelfCheck(model, rows, PLAIN_LOSS, gradients=False)
    route = choose_path(check, model, Wanted(), note)
    return bound(route, None)
