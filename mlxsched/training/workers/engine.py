"""The engine of one of several workers: it adds up loss and gradients over all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from mlxsched.model.evaluate import Evaluator, PartialLoss
from mlxsched.training.batch_loader import UpdateBatches
from mlxsched.training.engine import Engine, Outcome, Snapshot
from mlxsched.training.optimizers import Packed
from mlxsched.training.workers.world import World

ROUND = 8  # micro-batches of each worker between two looks at the leader's policies in an evaluation


class LaterOutcome(Outcome):
    """The result of an update that is made when somebody waits for it, so that the next one can be laid out before."""

    def __init__(self, make: Callable[[], Outcome]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Outcome:
        return self._make()

    def wait(self) -> None:
        self._made.wait()

    @cached_property
    def loss(self) -> float:
        return self._made.loss

    @cached_property
    def grad_norm(self) -> float:
        return self._made.grad_norm

    @cached_property
    def applied(self) -> bool:
        return self._made.applied


class SharedEngine(Engine):
    """An engine that makes each update together with the other workers of ``world``; see `Engine` for the rest.

    Every worker clips, checks and applies the same sums, so all of them keep the same parameters and optimizer state.
    Where another worker is lost, `WorkersLost` is raised, and these are as after the last complete update.
    """

    def __init__(self, world: World, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.world = world
        self._parts: dict[Evaluator, Evaluator] = {}

    def update(self, batches: UpdateBatches, rate: float) -> Outcome:
        """Make one update from the shares of all workers, who are waited for when the outcome is."""
        self._remember(batches.update)
        mine = super()._sums(batches)
        return LaterOutcome(lambda: self._apply(self._shared(mine), rate))

    def evaluate_round(self, evaluator: Evaluator, start: int) -> tuple[PartialLoss, bool]:
        """The loss on the micro-batches from ``start`` on, `ROUND` of each worker's part, and whether more are left."""
        if evaluator not in self._parts:
            self._parts[evaluator] = evaluator.part(self.world.rank, self.world.size)
        part = self._parts[evaluator]
        mine = part.partial(self.tree(), start, start + ROUND)
        gathered = self.world.gather([*mine, part.n_batches > start + ROUND]).tolist()
        self.world.busy = False
        total = PartialLoss.sum_of(PartialLoss(*numbers) for *numbers, _ in gathered)
        return total, any(more for *_, more in gathered)

    def share(self, snapshot: Snapshot) -> None:
        """Continue from the leader's ``snapshot``; that of the others only has the same names, shapes and types."""
        parameters, state = tree_map(self.world.copy, (snapshot.parameters, snapshot.optimizer_state))
        self.world.busy = False
        super().restore(Snapshot(parameters, state))

    def _sums(self, batches: UpdateBatches) -> tuple[mx.array, Packed]:
        return self._shared(super()._sums(batches))

    def _shared(self, sums: tuple[mx.array, Packed]) -> tuple[mx.array, Packed]:
        leaves: list[tuple[str, mx.array]] = tree_flatten(sums)  # type: ignore[assignment]  # a list without destination
        summed = iter(self.world.sum([tensor for _, tensor in leaves]))
        self.world.busy = False
        shared: tuple[mx.array, Packed] = tree_map(lambda _: next(summed), sums)
        return shared
