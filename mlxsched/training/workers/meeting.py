"""The workers compare what each has planned before the first update: they must be training the same."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

from mlxsched.errors import UsageError
from mlxsched.model.load import model_fingerprint
from mlxsched.model.trees import flatten
from mlxsched.platform.machine import versions
from mlxsched.text import counted
from mlxsched.training.layout import LAYOUT, LAYOUT_NAME
from mlxsched.training.session import Session
from mlxsched.training.workers.world import Order, World

_VERSIONS = ("mlxsched", "mlx", "mlx-lm")  # others differ between a Mac and a Linux machine


def lead(session: Session, world: World) -> Session:
    """``session`` as the leader of ``world``, whose other workers have planned the same and wait for orders.

    Raises:
        UsageError: they have not, or there are more of them than rows in an update.
    """
    if world.alone:
        return session
    if session.plan.batch_size < world.size:
        rows = counted(session.plan.batch_size, "row")
        raise UsageError(
            f"an update of {rows} cannot be shared by {world.size} workers. Raise --batch-size or "
            "--grad-accumulation-steps, or start fewer workers."
        )
    world.tell(
        {"do": "start", "facts": _facts(session)}, patient=True
    )  # they may still be downloading the model
    agree = world.gather([1.0])[:, 0]
    wrong = ", ".join(str(rank) for rank, value in enumerate(agree) if not value)
    if wrong:
        raise UsageError(
            f"worker {wrong} cannot train the same as worker 0; its own message says what differs."
        )
    return replace(session, world=world)


def join(session: Session, world: World, order: Order) -> Session:
    """``session`` as a follower in ``world``, whose leader has sent ``order`` from `lead`.

    Raises:
        UsageError: this worker has planned something else.
    """
    mine, theirs = _facts(session), order["facts"]
    different = [
        f"{name} ({str(theirs.get(name))[:12]} there, {str(value)[:12]} here)"
        for name, value in mine.items()
        if theirs.get(name) != value
    ]
    world.gather([float(not different)])
    if different:
        raise UsageError(
            f"differs from worker 0 in: {'; '.join(different)}. All workers need the same versions, model and data."
        )
    return replace(session, world=world)


def _facts(session: Session) -> dict[str, object]:
    """What all workers must have in common: what decides the arithmetic, and the shapes of what they exchange."""
    installed = versions()
    trained = {
        path: [list(value.shape), str(value.dtype)]
        for path, value in flatten(session.loaded.model.trainable_parameters()).items()
    }
    return {
        **{package: installed.get(package) for package in _VERSIONS},
        LAYOUT_NAME: LAYOUT,
        "the content of the data": session.dataset.fingerprint,
        "the content of the model": model_fingerprint(session.loaded.path),
        "trained tensors": hashlib.sha256(json.dumps(trained).encode()).hexdigest(),
        "rows of an update": session.plan.batch_size,
        "stochastic rounding": session.config.stochastic_rounding,
    }
