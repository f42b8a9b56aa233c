"""Predicted and measured peaks of memory over models and forward paths; fits the factors of the prediction.

    python benchmarks/memory_plan.py                # the fitted grid, then held-out shapes
    python benchmarks/memory_plan.py --held-out     # only the held-out shapes
    python benchmarks/memory_plan.py --fit          # new factors from the grid, for mlxsched/planning/memory_model.py

Each measurement runs two micro-batches and one update in the compiled step of a training. The peak is
`mx.get_peak_memory` minus the memory in use before. Weights are random, and layers few, so that it takes minutes. The
measurement limits how far MLX allocates ahead where a run would, except with --fit, since the limit depends on the prediction.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402

from mlxsched.bench.shapes import config_of, random_model  # noqa: E402
from mlxsched.data.batching.batches import Batch  # noqa: E402
from mlxsched.model import adapters  # noqa: E402
from mlxsched.model.fast.attention import KEPT, LEAN  # noqa: E402
from mlxsched.model.fast.cross_entropy import chunk_rows  # noqa: E402
from mlxsched.model.fast.forward_path import ForwardPath, padded_targets  # noqa: E402
from mlxsched.model.fast.frozen_prefix import PrefixBoundary, find_boundary  # noqa: E402
from mlxsched.model.fast.head import find_head  # noqa: E402
from mlxsched.model.fast.patching import NotApplicable  # noqa: E402
from mlxsched.model.trees import flatten, n_bytes  # noqa: E402
from mlxsched.planning.memory_model import (  # noqa: E402
    FACTORS,
    Factors,
    ModelShape,
    Workload,
    allocation_limit,
    peak_above_weights,
)
from mlxsched.training.allocation_limit import limited_allocation  # noqa: E402
from mlxsched.training.optimizers import group_tensors  # noqa: E402
from mlxsched.training.step import UpdateStep  # noqa: E402

LORA = {"rank": 8, "scale": 20.0, "dropout": 0.0}
TINY = {
    "hidden_size": 128, "intermediate_size": 352, "num_attention_heads": 4, "num_key_value_heads": 4,
    "vocab_size": 1280, "num_hidden_layers": 3,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A model, the number of trained layers, and shapes of micro-batches: rows, inputs, share of targets."""

    shape: str
    trained: int
    batches: tuple[tuple[int, int, float], ...]
    changes: dict[str, Any] = field(default_factory=dict)
    kind: str = "float32"
    full: bool = False


def _few(layers: int, vocabulary: int) -> dict[str, Any]:
    return {"num_hidden_layers": layers, "vocab_size": vocabulary}


GRID = (
    Case("llama-135m", 3, ((4, 64, 0.4), (8, 128, 0.4), (1, 512, 0.4), (16, 64, 1.0)), TINY),
    Case("llama-135m", 3, ((11, 32, 0.3), (11, 32, 0.5), (21, 32, 0.55)), {**TINY, "vocab_size": 49152}),
    Case("llama-135m", 2, ((1, 128, 0.4), (4, 128, 0.4), (1, 512, 0.4)), _few(4, 8192)),
    Case("llama-135m", 4, ((1, 128, 0.4), (4, 128, 0.4), (1, 512, 0.4), (8, 64, 1.0)), _few(4, 8192)),
    Case("llama-135m", 3, ((2, 128, 0.4), (1, 512, 0.4), (8, 32, 0.4)), _few(6, 49152)),
    Case("qwen3-0.6b", 2, ((2, 64, 0.4), (4, 64, 0.4), (1, 256, 0.4), (1, 256, 1.0)), _few(3, 32768)),
    Case("granite-350m", 2, ((2, 64, 0.4), (4, 64, 0.4), (1, 256, 0.4)), _few(4, 50176)),
    Case("llama-135m", 2, ((1, 128, 0.4), (4, 128, 0.4), (1, 512, 0.4)), _few(4, 8192), full=True),
    Case("llama-135m", 1, ((1, 64, 0.4), (2, 64, 0.4)), _few(2, 8192), kind="4-bit"),
)
HELD_OUT = (
    Case("llama-135m", 5, ((4, 256, 0.4),), _few(8, 49152)),
    Case("qwen3-0.6b", 1, ((3, 100, 0.3),), _few(2, 151936)),
    Case("granite-350m", 3, ((2, 200, 0.4),), _few(3, 100352)),
    Case("llama-135m", 6, ((8, 64, 0.4),), {**TINY, "num_hidden_layers": 8, "hidden_size": 256}),
)


@dataclass(frozen=True)
class Point:
    """One measurement, and the inputs of its prediction."""

    name: str
    shape: ModelShape
    workload: Workload
    batch: tuple[int, int, int]
    measured: int

    def predicted(self, factors: Factors = FACTORS) -> int:
        """Bytes above the weights."""
        return peak_above_weights(self.shape, self.workload, *self.batch, factors)


def points(case: Case, *, limited: bool) -> Iterator[Point]:
    """Measure every forward path and batch shape of ``case``; with ``limited``, recomputed layers as in a run."""
    config = config_of(case.shape, **case.changes)
    model = random_model(config, case.kind)
    adapters.attach(model, "full" if case.full else "lora", case.trained, LORA, 0)
    trained_bytes = n_bytes(model.trainable_parameters())
    for name, path in forward_paths(model).items():
        workload = Workload(
            case.trained, trained_bytes, path.head is not None, path.chunk, path.checkpoint,
            limited=limited and path.checkpoint > 0 and path.head is not None,
        )  # fmt: skip
        for rows, length, share in case.batches:
            count = rows * length
            if path.blocks:
                workload = dataclasses.replace(workload, scores=path.blocks.shares(length))
            targets = int(share * count)
            label = f"{case.shape} {case.kind}{' full' if case.full else ''}, {case.trained} layers, {name}"
            batch = (rows, length, padded_targets(targets, count))
            point = Point(label, ModelShape.of(config), workload, batch, 0)
            room = allocation_limit(point.predicted()) if workload.limited else None
            yield dataclasses.replace(point, measured=measured(model, path, batch[:2], targets, room))


def forward_paths(model: Any) -> dict[str, ForwardPath]:
    """The forward paths that a run of ``model`` can use."""
    ids = mx.array(np.arange(12).reshape(2, 6))
    head = find_head(model, ids)
    chunk = chunk_rows(head.vocabulary)
    found = {
        "plain": ForwardPath(),
        "plain, checkpointed": ForwardPath(checkpoint=1),
        "gathered": ForwardPath(head),
        "chunked": ForwardPath(head, chunk),
        "chunked, in blocks": ForwardPath(head, chunk, blocks=KEPT),
        "chunked, in blocks, checkpointed": ForwardPath(head, chunk_rows(head.vocabulary, 1), None, 1, LEAN),
    }
    with contextlib.suppress(NotApplicable):
        found["prefix cached"] = ForwardPath(head, chunk, find_boundary(model, ids), 0, KEPT)
    return found


class _Zeros:
    """Stands in for the frozen-prefix activations at ``boundary``."""

    def __init__(self, boundary: PrefixBoundary) -> None:
        self._boundary = boundary

    def batch(self, _: Any, shape: tuple[int, int], _places: Any = None) -> mx.array:
        return mx.zeros((*shape, self._boundary.width), self._boundary.dtype)


def measured(model: Any, path: ForwardPath, shape: tuple[int, int], targets: int, room: int | None) -> int:
    """The peak above the weights, in bytes, of an update of two micro-batches; above ``room``, MLX waits."""
    batch = random_batch(*shape, targets)
    gc.collect()
    mx.synchronize()
    mx.clear_cache()
    kept = model.trainable_parameters()
    tensors, before = flatten(kept), mx.get_active_memory()
    mx.reset_peak_memory()
    optimizer = group_tensors(tensors, "adamw", {})
    packed = optimizer.pack(tensors)
    state = optimizer.init(packed)
    if path.boundary:
        path = dataclasses.replace(path, activations=_Zeros(path.boundary))
    step = UpdateStep(model, optimizer, path.loss, max_grad_norm=1.0)
    sums = step.zeros(packed)
    with limited_allocation(None if room is None else before + room):
        for _ in range(2):
            sums = step.add(packed, sums, *path.arrays(batch, 2.0 * targets))
            mx.async_eval(sums)
        mx.eval(step.apply(packed, state, sums, 1e-4))
    model.update(kept)
    return mx.get_peak_memory() - before


def random_batch(rows: int, length: int, targets: int) -> Batch:
    """Random tokens, ``targets`` of which are scored."""
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, 1000, (2, rows, length)).astype(np.int32)
    weights = np.zeros(rows * length, np.float32)
    weights[draw.permutation(rows * length)[:targets]] = 1
    return Batch(*tokens, weights.reshape(rows, length), np.arange(rows), rows * length, targets)


def table(cases: tuple[Case, ...], *, limited: bool = True) -> list[Point]:
    """Print predictions next to measurements."""
    found = []
    for case in cases:
        for point in points(case, limited=limited):
            found.append(point)
            off = point.predicted() / point.measured - 1
            rows, length, targets = point.batch
            print(
                f"{point.name:58s} {rows:3d} x {length:4d} ({targets:4d} targets) "
                f"{point.predicted() / 1e6:8.1f} {point.measured / 1e6:8.1f} MB {off:+6.1%}",
                flush=True,
            )
    errors = np.abs([point.predicted() / point.measured - 1 for point in found])
    within = float((errors <= 0.15).mean())
    print(
        f"{len(found)} points: mean {errors.mean():.1%}, largest {errors.max():.1%}, {within:.0%} within 15%"
    )
    return found


def fit(found: list[Point], steps: int = 20_000) -> Factors:
    """The factors with the least error, by random search from the current ones: a dozen numbers, no useful gradient."""
    draw = np.random.default_rng(0)
    best = np.array(dataclasses.astuple(FACTORS))
    lowest = _error(found, best)
    for step in range(steps):
        moved = draw.random(len(best)) < 0.3
        tried = best * np.exp(moved * draw.normal(0, max(0.3 * 0.9998**step, 0.02), len(best)))
        error = _error(found, tried)
        if error < lowest:
            best, lowest = tried, error
    return Factors(*map(float, best.round(2)))


def _error(found: list[Point], numbers: Any) -> float:
    factors = Factors(*map(float, numbers))
    logs = np.array([np.log(point.predicted(factors) / point.measured) for point in found])
    return float((logs**2).mean() + 0.2 * (logs**2).max())


def main() -> None:
    """Print the tables; with --fit, the new factors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--fit", action="store_true")
    options = parser.parse_args()
    if not options.held_out:
        found = table(GRID, limited=not options.fit)
        if options.fit:
            print(fit(found))
            return
    print("held-out shapes:")
    table(HELD_OUT)


if __name__ == "__main__":
    main()
