"""Short cuts are tried on the user's own rows against the plain path, and only those that agree are taken."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.utils import tree_map

from mlxsched.data.batching.batches import Batch, collate, places_of
from mlxsched.data.batching.grid import length_grid
from mlxsched.data.batching.packing import Packing
from mlxsched.data.rows import Rows, rows_in_memory
from mlxsched.model.fast.attention import blocks_for
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.model.fast.forward_path import PLAIN, Arrays, ForwardPath
from mlxsched.model.fast.frozen_prefix import NothingFrozen, PrefixBoundary, find_boundary, prefix_states
from mlxsched.model.fast.head import find_head
from mlxsched.model.fast.patching import NotApplicable, dropout_off
from mlxsched.model.fast.prefix_activations import put
from mlxsched.model.loss import LossOptions, weighted_loss
from mlxsched.model.trees import Tensors, flatten, global_norm, unflatten

_ROWS, _POSITIONS = 3, 64  # of the checked batch
_LEAST_POSITIONS = 16
_LOGITS = (
    1 << 21
)  # of the checked batch, as far as that leaves enough positions: the plain path holds all, several times
_PACKED_ROWS = 6
Note = Callable[[str], None]
Found = TypeVar("Found")


@dataclass(frozen=True)
class Tolerance:
    """Largest relative difference of the loss, and of the gradients' Euclidean norm."""

    loss: float
    gradients: float


EXACT = Tolerance(1e-5, 1e-4)
HALF = Tolerance(5e-3, 5e-2)  # activations of 8 to 11 bits: the order of a sum shows


@dataclass(frozen=True)
class Wanted:
    """What a run would like beside what costs nothing: kept states, and checkpoints of every so many-th layer."""

    prefix: bool = False
    checkpoint: int = 0


class SelfCheck:
    """Compares routes through ``model`` with the plain path on a few of ``rows``.

    With ``packing`` there is a second micro-batch, which the routes that are compared have in its lines.
    """

    def __init__(
        self,
        model: Module,
        rows: Rows,
        options: LossOptions,
        *,
        gradients: bool = True,
        packing: Packing | None = None,
    ) -> None:
        self._model, self._options, self._gradients = model, options, gradients
        vocabulary = _vocabulary(model)
        self.batch = sample_batch(rows, vocabulary)
        # Each micro-batch as the plain path takes it, maybe in parts, and as the routes do.
        self._samples = [([self.batch], self.batch)]
        if packing is not None:
            self._samples.append(packed_sample(rows, packing, vocabulary))
        self.inputs = mx.array(self.batch.inputs)
        self._kept = flatten(model.trainable_parameters())
        self._tree = unflatten(_stirred(self._kept))
        self._n_targets = float(sum(taken.n_targets for _, taken in self._samples))
        plain, layout = partial(weighted_loss, options=options), PLAIN.layout()
        arrays = [layout(batch, self._n_targets) for batches, _ in self._samples for batch in batches]
        self._expected = self._run(plain, arrays, compiled=False)
        self.tolerance = EXACT if self._is_float32() else HALF

    @property
    def usable(self) -> bool:
        """Whether the plain path gives numbers to compare with."""
        loss, gradients = self._expected
        return math.isfinite(loss) and all(mx.isfinite(g).all().item() for g in gradients.values())

    def complaint(self, route: ForwardPath) -> str | None:
        """Why ``route`` can't be taken; None if it agrees with the plain path."""
        try:
            route = self._in_small(route)
            arrays = self._arrays(route)
            loss = route.loss(self._options, differentiable=self._gradients)
            got = self._run(loss, arrays, compiled=route.compiled)
        except NotApplicable as reason:
            return str(reason)
        except Exception as error:  # noqa: BLE001 whatever a strange model does with the hooks, the plain path is there
            return f"it raises {type(error).__name__}: {str(error)[:200]}"
        return self._difference(*got)

    def _in_small(self, route: ForwardPath) -> ForwardPath:
        """``route`` with chunks and blocks so small that the few tokens of a checked batch need several."""
        if route.chunk:
            fewest = min(taken.n_targets for _, taken in self._samples)
            route = replace(route, chunk=max(fewest // 2, 1))
        if route.blocks:
            least = min(taken.shape[1] for _, taken in self._samples) // 3
            route = replace(route, blocks=replace(route.blocks, least=max(least, 1)))
        return route

    def _run(
        self, loss: Callable[..., mx.array], batches: list[Arrays], *, compiled: bool
    ) -> tuple[float, Tensors]:
        def of(tree: Any, *arrays: mx.array) -> mx.array:
            self._model.update(tree)
            return loss(self._model, *arrays)

        function: Any = mx.value_and_grad(of) if self._gradients else lambda *a: (of(*a), {})
        function = mx.compile(function) if compiled else function
        with dropout_off(self._model):
            try:
                value, gradients = function(self._tree, *batches[0])
                for arrays in batches[1:]:
                    mx.eval(value, gradients)
                    more = function(self._tree, *arrays)
                    value, gradients = value + more[0], tree_map(mx.add, gradients, more[1])
                mx.eval(value, gradients)
            finally:
                self._model.update(unflatten(self._kept))  # tracing left placeholders
        return value.item(), flatten(gradients)

    def _difference(self, loss: float, gradients: Tensors) -> str | None:
        expected, wanted = self._expected
        off = abs(loss - expected) / max(abs(expected), 1e-30)
        if not off <= self.tolerance.loss:  # a NaN is not
            return f"its loss is off by {off:.1e}"
        off = _relative_distance(gradients, wanted)
        return None if off <= self.tolerance.gradients else f"its gradients are off by {off:.1e}"

    def _arrays(self, route: ForwardPath) -> list[Arrays]:
        layout, found = replace(route, tap=None).layout(), []
        for plain, taken in self._samples:
            arrays = layout(taken, self._n_targets)
            if route.source is not None:
                arrays = (*arrays, self._states(route.source, plain, taken))
            found.append(arrays)
        return found

    def _states(self, tap: PrefixBoundary, plain: list[Batch], taken: Batch) -> mx.array:
        """What a store would hand out for the targets' sake, of the rows of ``plain`` as ``taken`` has them."""
        of_row = {}
        for batch in plain:
            states = prefix_states(self._model, tap, mx.array(batch.inputs))
            values = np.array(states.astype(mx.float32))
            for line, index in enumerate(batch.indices):  # whole lines of padding come behind
                end = int(np.flatnonzero(batch.weights[line])[-1]) + 1
                of_row[int(index)] = values[line, :end]
        rows = [of_row[int(index)] for index in taken.indices]
        return mx.array(put(rows, taken.shape, places_of(taken.indices, taken.places))).astype(states.dtype)

    def _is_float32(self) -> bool:
        with dropout_off(self._model):
            return bool(self._model(self.inputs[:1, :2]).dtype == mx.float32)


def _vocabulary(model: Any) -> int:
    with dropout_off(model):
        return int(
            model(mx.zeros((1, 2), mx.int32)).shape[-1]
        )  # the shape is known before anything is computed


def sample_batch(rows: Rows, vocabulary: int) -> Batch:
    """A few rows of different lengths, cut behind their last target, padded like any micro-batch.

    The larger the ``vocabulary``, the fewer positions, so that the check is not what takes the most memory of a run.
    """
    positions = _positions(vocabulary)
    scored = np.flatnonzero(rows.target_counts)
    order = scored[np.argsort(rows.lengths[scored], kind="stable")]
    picked = np.unique(order[np.linspace(0, len(order) // 2, min(_ROWS, len(order))).astype(int)])
    pieces = [_piece(*rows[int(index)], positions) for index in picked]
    shape = (len(pieces), max(len(tokens) for tokens, _ in pieces) - 1)
    inputs, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weights = np.zeros(shape, np.float32)
    for line, (tokens, targets) in enumerate(pieces):
        end = len(tokens) - 1
        inputs[line, :end], labels[line, :end], weights[line, :end] = tokens[:-1], tokens[1:], targets[1:]
    used = sum(len(tokens) - 1 for tokens, _ in pieces)
    return Batch(inputs, labels, weights, picked, used, int(weights.sum()))


def packed_sample(rows: Rows, packing: Packing, vocabulary: int) -> tuple[list[Batch], Batch]:
    """A few rows of all lengths, cut likewise: one by one, for the plain path's memory, and in two lines."""
    positions = _positions(vocabulary)
    fitting = np.flatnonzero((rows.target_counts > 0) & packing.holds(rows.lengths))
    order = fitting[np.argsort(rows.lengths[fitting], kind="stable")]
    picked = np.unique(order[np.linspace(0, len(order) - 1, min(_PACKED_ROWS, len(order))).astype(int)])
    few = rows_in_memory(_piece(*rows[int(index)], positions) for index in picked)
    places = np.arange(len(few))
    halves = [packing.micro_batches(half, few.lengths) for half in (places[::2], places[1::2])]
    lines = [line for parts in halves for part in parts for line in part][: packing.max_packs]
    alone = [np.array([index]) for line in lines for index in line]
    return [collate(few, one, length_grid(few.lengths[one])) for one in alone], packing.collate(few, lines)


def _positions(vocabulary: int) -> int:
    return min(max(_LOGITS // vocabulary // _ROWS, _LEAST_POSITIONS), _POSITIONS)


def _piece(tokens: Any, targets: Any, positions: int) -> tuple[Any, Any]:
    stop = int(np.flatnonzero(targets)[-1]) + 1
    start = max(stop - positions - 1, 0)
    return tokens[start:stop], targets[start:stop]


def _stirred(tensors: Tensors) -> Tensors:
    """The tensors, but random ones for those that are all 0: LoRA's B would hide every error in A's gradient."""
    key = mx.random.key(0)
    return {
        path: value if mx.any(value).item() else 0.01 * mx.random.normal(value.shape, value.dtype, key=key)
        for path, value in tensors.items()
    }


def _relative_distance(got: Tensors, wanted: Tensors) -> float:
    if got.keys() != wanted.keys():
        return float("inf")
    if not wanted:
        return 0.0
    apart = global_norm({path: got[path].astype(mx.float32) - wanted[path] for path in wanted})
    distance: Any = apart / mx.maximum(global_norm(wanted), 1e-30)
    return float(distance.item())


def choose_path(check: SelfCheck, model: Module, wanted: Wanted, note: Note) -> ForwardPath:
    """The fastest route that agrees with the plain path; ``note`` is told why a short cut is not taken."""
    head = _found(lambda: find_head(model, check.inputs), "loss only at targets", note)
    tap = None
    if wanted.prefix:
        tap = _found(lambda: find_boundary(model, check.inputs), "states of frozen layers", note)
    # The chunks' own backward pass is for a head that is not trained.
    chunk = chunk_rows(head.vocabulary, wanted.checkpoint) if head and head.frozen else None
    blocks = blocks_for(wanted.checkpoint)
    full = ForwardPath(head, chunk, tap, wanted.checkpoint, blocks, compiled=True)
    if check.complaint(full) is None:
        return full
    return _one_by_one(check, full, note)


def packed_if_right(check: SelfCheck, route: ForwardPath, packing: Packing, note: Note) -> ForwardPath:
    """``route`` with several rows in a line, where that agrees with the plain path; ``check`` has such rows."""
    attempt = replace(route, packing=packing)
    # Kept states hide how the layers below them fare, and there may be no room for states.
    complaint = check.complaint(replace(attempt, tap=None))
    if complaint is None and attempt.tap is not None:
        complaint = check.complaint(attempt)
    if complaint is None:
        return attempt
    note(f"several rows in a line: switched off, {complaint}")
    return route


def _found(find: Callable[[], Found], what: str, note: Note) -> Found | None:
    try:
        return find()
    except NothingFrozen:
        pass  # a usual case, and no loss
    except NotApplicable as reason:
        note(f"{what}: not used with this model, {reason}")
    except Exception as error:  # noqa: BLE001 a model that is too strange to look into
        note(f"{what}: not used with this model, looking for it raises {type(error).__name__}: {error}")
    return None


def _one_by_one(check: SelfCheck, full: ForwardPath, note: Note) -> ForwardPath:
    """Add one short cut after the other, leaving out those that disagree."""
    route = PLAIN
    steps: list[tuple[str, dict[str, Any]]] = [
        ("compiled step", {"compiled": True}),
        ("loss only at targets", {"head": full.head}),
        ("cross-entropy in chunks", {"chunk": full.chunk}),
        ("attention in blocks", {"blocks": full.blocks}),
        ("states of frozen layers", {"tap": full.tap}),
        ("gradient checkpointing", {"checkpoint": full.checkpoint}),
    ]
    for what, change in steps:
        attempt = replace(route, **change)
        if attempt == route or (attempt.chunk and not attempt.head):
            continue
        complaint = check.complaint(attempt)
        if complaint is None:
            route = attempt
        else:
            note(f"{what}: switched off, {complaint}")
    return route
