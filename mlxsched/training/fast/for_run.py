"""The short cuts of a run: what its config and plan ask for, checked, with the stores that they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.nn.layers.base import Module

from ...data.cuts import WIDEST
from ...data.rows import Rows
from ..loss import PLAIN_LOSS, LossOptions
from .route import PLAIN, Layout, Route
from .self_check import Note, SelfCheck, Wanted, choose_route, packed_if_right
from .state_files import SharedFolder
from .states import PrefixStates, Store, make_states

if TYPE_CHECKING:
    from ..session import Session

LossFunction = Callable[..., mx.array]


@dataclass(frozen=True)
class Way:
    """A loss function of ``(model, *arrays)``, the layout that makes those arrays from a batch, and whether to compile.

    ``route`` is what they were made from.
    """

    loss: LossFunction
    layout: Layout
    compiled: bool
    route: Route


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
    route = Route(checkpoint=checkpoint)
    if config.fast:
        check = SelfCheck(model, session.train_rows, options)
        wanted = Wanted(prefix=config.prefix_cache > 0, checkpoint=checkpoint)
        route = choose_route(check, model, wanted, note)
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


def _packed(session: Session, route: Route, options: LossOptions, note: Note) -> Route:
    """``route`` with several rows in a line, where that is planned, and right."""
    packing = session.cut.packing
    if packing is None:
        if session.config.packing:
            note(f"several rows in a line: not used, no row fits into one of {WIDEST} tokens")
        return route
    check = SelfCheck(session.loaded.model, session.train_rows, options, packing=packing)
    return packed_if_right(check, route, packing, note)


def _way(
    model: Module,
    route: Route,
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
    states: PrefixStates | None = None
    if route.source is not None and again and limit != 0:
        states = make_states(
            model, route.source, rows, store, max_tokens=max_tokens, limit=limit, compiled=route.compiled
        )
        if states is None:
            note(f"states of frozen layers: not kept for {len(rows)} rows, there is no room for them")
    if states is None:
        route = replace(route, tap=None)
    return _made(route, states, options, differentiable)


def _made(
    route: Route, states: PrefixStates | None, options: LossOptions = PLAIN_LOSS, differentiable: bool = False
) -> Way:
    loss = route.loss(options, differentiable=differentiable)
    taken = route if differentiable else replace(route, checkpoint=0, blocks=route.forward_blocks)
    return Way(loss, route.layout(states), route.compiled, taken)


def way_to_measure(model: Module, rows: Rows, note: Note = lambda text: None) -> Way:
    """The way of rows that are only measured, once."""
    check = SelfCheck(model, rows, PLAIN_LOSS, gradients=False)
    route = choose_route(check, model, Wanted(), note)
    return _made(route, None)


PLAIN_WAY = _made(PLAIN, None)
