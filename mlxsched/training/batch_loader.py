"""The micro-batches of each update: a pure function of the update index, so any update can be the next one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from mlxsched.data.batching.batches import Batch, counts, prefix_batch
from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.sharing import Group
from mlxsched.data.rows import Indices, Rows
from mlxsched.model.fast.forward_path import Arrays


class GroupArrays(NamedTuple):
    """A prefix ``[1, P]``, and the micro-batches of the rows that continue it, each as the loss takes it.

    A prefix without targets is its inputs alone, as nothing needs the output of the last layer then.
    """

    prefix: Arrays
    arrays: list[Arrays]


@dataclass(frozen=True)
class UpdateBatches:
    """What update number ``update`` trains on: its rows, and the arrays of each micro-batch as the loss takes them.

    Each target has a weight of one over the number of targets of the whole update, so all weights add up to 1. With
    several workers ``arrays`` are the share of this one; the rows and the counts are those of the whole update. Rows that
    share a prefix are in ``groups``, the others in ``arrays``.
    """

    update: int
    rows: Indices
    arrays: list[Arrays]
    n_tokens: int
    n_targets: int
    groups: list[GroupArrays] = field(default_factory=list)


class BatchLoader:
    """Draws the rows of an update by ``sampler``, cuts them into micro-batches by ``plan``, and makes arrays by ``arrays_of``
    (`ForwardPath.arrays`).

    ``rows_of`` returns the most rows that an update may have, None for as many as any other: the horizon of a run
    knows, and may change. ``share_of`` returns those of the rows that this worker trains on.
    """

    def __init__(
        self,
        rows: Rows,
        sampler: Sampler,
        plan: BatchingPlan,
        arrays_of: Callable[[Batch, float], Arrays],
        *,
        rows_of: Callable[[int], int | None] = lambda update: None,
        share_of: Callable[[Indices], Indices] = lambda indices: indices,
    ) -> None:
        self._rows, self._sampler, self._plan, self._arrays_of = rows, sampler, plan, arrays_of
        self._rows_of, self._share_of = rows_of, share_of
        self._ahead: UpdateBatches | None = None

    def indices(self, update: int) -> Indices:
        """The rows of update number ``update``."""
        return self._sampler.rows(update)[: self._rows_of(update)]

    def prepare(self, update: int) -> None:
        """Lay out ``update`` ahead of time, while the device is busy with the one before."""
        self._ahead = self._load(update)

    def __call__(self, update: int) -> UpdateBatches:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.update == update and len(ahead.rows) == len(self.indices(update)):
            return ahead
        return self._load(update)

    def _load(self, update: int) -> UpdateBatches:
        indices = self.indices(update)
        n_tokens, n_targets = counts(self._rows, indices)
        groups, alone = self._plan.groups(self._rows, self._share_of(indices))
        batches = self._plan.batches(self._rows, alone) if len(alone) else []
        arrays = [self._arrays_of(batch, n_targets) for batch in batches]
        laid_out = [self._group(group, n_targets) for group in groups]
        return UpdateBatches(update, indices, arrays, n_tokens, n_targets, laid_out)

    def _group(self, group: Group, n_targets: float) -> GroupArrays:
        assert self._plan.sharing is not None  # noqa: S101  it made the group
        prefix = prefix_batch(self._rows, group.indices, group.length)
        batches = self._plan.sharing.batches(self._rows, group)
        arrays = [self._arrays_of(batch, n_targets) for batch in batches]
        beginning = self._arrays_of(prefix, n_targets)
        return GroupArrays(beginning if prefix.n_targets else beginning[:1], arrays)
