"""The other workers: each carries out the orders of worker 0 until it says that the run is over."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

from mlxsched.errors import RunError
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_engine, make_evaluator, make_loader, make_pace
from mlxsched.training.out_of_memory import out_of_memory
from mlxsched.training.policies.host import limits
from mlxsched.training.session import Session
from mlxsched.training.workers.engine import SharedEngine
from mlxsched.training.workers.world import Order


def follow(session: Session, directory: Path | None) -> int:
    """Train as the leader says; returns the exit code that it ends with.

    Args:
        session: the run, planned as the leader has planned it.
        directory: for a temporary file of stored activations; None for no file.

    Raises:
        WorkersLost: the leader or another worker has ended or does not answer.
        RunError: this one has not enough memory.
    """
    try:
        with limits(session.config):
            follower = Follower(session, directory)
            while (order := session.world.told())["do"] != "end":
                follower.obey(order)
    except (MemoryError, RuntimeError) as error:
        raise out_of_memory(error, "resume the run") or error from error
    return int(order["code"])


class Follower:
    """Makes its share of what the leader orders; ``directory`` as in `follow`."""

    def __init__(self, session: Session, directory: Path | None) -> None:
        paths = accelerate(session, directory, lambda text: None)  # the leader says what its user should know
        engine = make_engine(session, paths.training)
        if not isinstance(engine, SharedEngine):
            raise TypeError("a worker that is alone has nobody to follow")
        self._engine = engine
        self._pace = make_pace(session)
        self._loader = make_loader(session, paths.training, self._pace)
        self._evaluator = make_evaluator(session, paths.validation)
        self._most_cached = session.config.clear_cache_threshold
        session.loaded.model.train()

    def obey(self, order: Order) -> None:
        """Carry out one order."""
        match order:
            case {"do": "update", "rate": rate}:
                self._update(order, rate)
            case {"do": "loss"}:
                self._engine.loss(self._loader(self._planned(order)))
            case {"do": "evaluate", "start": start} if self._evaluator:
                self._engine.evaluate_round(self._evaluator, start)
            case {"do": "restore"}:
                self._engine.share(self._engine.snapshot())
            case {"do": "rest", "seconds": seconds}:
                time.sleep(seconds)
            case _:
                raise RunError(f"the leader wants {order}, which this version of mlxsched does not know.")

    def _update(self, order: Order, rate: float) -> None:
        update = self._planned(order)
        outcome = self._engine.update(self._loader(update), rate)
        self._loader.prepare(update + 1)  # the next order, in all likelihood
        outcome.wait()
        if self._most_cached and mx.get_cache_memory() > self._most_cached:
            mx.clear_cache()

    def _planned(self, order: Order) -> int:
        """The update that the order is about; the horizon ends with it, so that it has as many rows as the leader's."""
        update = int(order["update"])
        self._pace.horizon = replace(self._pace.horizon, updates=update + 1, last_rows=order["rows"])
        return update
