"""The limit on how far MLX allocates ahead: it saves memory, changes no bit, and is restored."""

from __future__ import annotations

from dataclasses import replace
from threading import Barrier, Thread

import mlx.core as mx
import pytest

from mlxsched.bench.synthetic import LogNormal, lognormal_rows
from mlxsched.config import load_config
from mlxsched.data import Dataset
from mlxsched.model.fast.attention import blocks_for
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.fast.head import find_head
from mlxsched.training.allocation_limit import limited_allocation
from mlxsched.training.assembly import make_engine, make_loader, make_pace
from mlxsched.training.session import prepare

pytestmark = pytest.mark.skipif(
    mx.default_device().type != mx.DeviceType.cpu, reason="there is no limit on a GPU"
)


def made_with(**flags):
    rows = lognormal_rows(2, LogNormal(median=450, shortest=400, longest=500))
    common = {"batch_size": 2, "num_layers": 2, "iters": 2, "test": False, "prefix_cache": 0}
    flags = {**common, "micro_batch_tokens": 256, **flags}
    return prepare(load_config(flags=flags).config, dataset=Dataset({"train": rows}, "synthetic"))


@pytest.fixture(scope="module")
def lean():
    """A session with recomputed layers, and its path; a self-check would take longer than the tests."""
    made = made_with(grad_checkpoint=True)
    head = find_head(made.loaded.model, mx.arange(12)[None])
    chunk = chunk_rows(head.vocabulary, 1)
    return made, ForwardPath(head, chunk, checkpoint=1, blocks=blocks_for(1), compiled=True)


def trained(made, path, room):
    """Losses and tensors of two updates, and the peak above the weights."""
    mx.clear_cache()
    before = mx.get_active_memory()
    engine, loader = make_engine(made, path), make_loader(made, path, make_pace(made))
    engine._limit = room and before + room
    start = engine.snapshot()
    mx.reset_peak_memory()
    losses = [engine.update(loader(update), 1e-3).loss for update in (0, 1)]
    tensors, peak = engine.tensors(), mx.get_peak_memory() - before
    engine.restore(start)
    engine.load_into_model()
    return losses, tensors, peak


def test_waiting_takes_less_memory_as_planned_and_changes_no_bit(lean):
    made, path = lean
    losses, tensors, peak = trained(made, path, made.allocation_limit)
    free_losses, free_tensors, free_peak = trained(made, path, None)
    assert losses == free_losses
    assert all(mx.array_equal(tensor, free_tensors[name]).item() for name, tensor in tensors.items())
    assert peak < 0.92 * free_peak
    assert peak == pytest.approx(made.memory.above_weights, rel=0.1)
    free = made_with(grad_checkpoint=True, without="allocation-limit").memory
    assert made.memory.above_weights < 0.9 * free.above_weights


@pytest.mark.parametrize("flags", [{}, {"without": "allocation-limit"}, {"fast": False}])
def test_there_is_no_limit_without_recomputation_or_where_it_is_switched_off(flags):
    assert made_with(grad_checkpoint=bool(flags), **flags).allocation_limit is None


def test_there_is_no_limit_where_the_peak_was_measured_or_layers_are_not_recomputed_after_all(lean):
    made, path = lean
    assert made.allocation_limit < made.memory.above_weights
    assert replace(made, memory=replace(made.memory, measured=True)).allocation_limit is None
    assert make_engine(made, path)._limit is not None
    assert make_engine(made, replace(path, checkpoint=0))._limit is None


def limit_of_mlx():
    limit = mx.set_memory_limit(0)
    mx.set_memory_limit(limit)
    return limit


def test_the_limit_is_restored_whatever_happens():
    usual = limit_of_mlx()
    with limited_allocation(None):
        assert limit_of_mlx() == usual
    with pytest.raises(ValueError, match="stop"), limited_allocation(1000):
        assert limit_of_mlx() == 1000
        raise ValueError("stop")
    assert limit_of_mlx() == usual


def test_the_limit_is_restored_after_threads_that_overlap():
    """The thread that enters first leaves first, while the other is still inside."""
    usual, second_is_in, first_is_out = limit_of_mlx(), Barrier(2), Barrier(2)

    def first():
        with limited_allocation(1000):
            second_is_in.wait(10)
        first_is_out.wait(10)

    thread = Thread(target=first)
    thread.start()
    with limited_allocation(2000):
        second_is_in.wait(10)
        first_is_out.wait(10)
    thread.join()
    assert limit_of_mlx() == usual
