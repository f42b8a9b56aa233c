"""Stored activations of the frozen layers: the same whatever order asks for them, in memory and on disk."""

from __future__ import annotations

import errno
import os
import shutil
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.model.fast.frozen_prefix import boundary_input, find_boundary
from mlxsched.model.fast.prefix_activations import ActivationStore, make_activations

PROBE = mx.array([[1, 2, 3, 4]])


MEMORY = ActivationStore(10**9, None)


def stored(model, rows, store=MEMORY, limit=None):
    groups = RowGroups.by_length(rows.lengths[:limit], 100)
    return make_activations(model, find_boundary(model, PROBE), rows, store, groups=groups)


def test_states_equal_the_layers_below_run_row_by_row(build, make_rows):
    model, rows = build(), make_rows()
    boundary = find_boundary(model, PROBE)
    got = stored(model, rows).batch(np.array([4, 9]), (3, 45))
    for line, index in enumerate((4, 9)):
        tokens = rows[index].tokens[:-1]
        expected = boundary_input(model, boundary, mx.array(tokens[None]))[0]
        np.testing.assert_allclose(got[line, : len(tokens)], expected, rtol=1e-4, atol=1e-5)
        # padding repeats the last real state
        np.testing.assert_array_equal(
            got[line, len(tokens) :], np.tile(got[line, len(tokens) - 1], (45 - len(tokens), 1))
        )


def test_the_order_of_asking_changes_no_bit(build, make_rows):
    model, rows = build(), make_rows()
    forwards, backwards = stored(model, rows), stored(model, rows)
    for index in range(len(rows)):
        forwards.batch(np.array([index]), (1, 40))
    for index in reversed(range(len(rows))):
        backwards.batch(np.array([index]), (1, 40))
    everything = np.arange(len(rows))
    shape = (len(rows), 40)
    assert mx.array_equal(forwards.batch(everything, shape), backwards.batch(everything, shape)).item()


def test_each_row_is_computed_once(build, make_rows):
    model, rows = build(), make_rows()
    states = stored(model, rows)
    seen, compute = [], states._compute
    states._compute = lambda inputs: seen.append(inputs.shape[0]) or compute(inputs)
    for _ in range(3):
        for index in range(len(rows)):
            states.batch(np.array([index]), (1, 40))
    assert len(seen) == int(states._groups.sets.max()) + 1 < len(rows)


def test_disk_holds_the_same_and_leaves_nothing_behind(build, make_rows, tmp_path):
    model, rows = build(), make_rows()
    on_disk = stored(model, rows, ActivationStore(0, tmp_path))
    assert isinstance(on_disk._stored.values, np.memmap)
    assert list(tmp_path.iterdir()) == []  # unlinked already: not even a killed process leaves it
    everything, shape = np.arange(len(rows)), (len(rows), 40)
    assert mx.array_equal(
        on_disk.batch(everything, shape), stored(model, rows).batch(everything, shape)
    ).item()


def test_without_room_there_are_no_states(build, make_rows, tmp_path, monkeypatch):
    assert stored(build(), make_rows(), ActivationStore(0, None)) is None

    def full(file, offset, size):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    assert stored(build(), make_rows(), ActivationStore(0, tmp_path)) is None
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    assert stored(build(), make_rows(), ActivationStore(0, tmp_path)) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_states_come_back_to_the_bit(build, make_rows, dtype):
    model, rows = build(), make_rows(1)
    model.set_dtype(dtype)
    length = int(rows.lengths[0]) - 1
    got = stored(model, rows).batch(np.array([0]), (1, length))
    expected = mx.compile(lambda x: boundary_input(model, find_boundary(model, PROBE), x))(
        mx.array(rows[0].tokens[None, :-1])
    )
    assert got.dtype == dtype
    assert mx.array_equal(got, expected).item()


def test_only_the_first_rows_when_limited(build, make_rows):
    rows = make_rows()
    states = stored(build(), rows, limit=5)
    assert len(states._stored.values) == int(rows.lengths[:5].sum()) - 5
    assert states.batch(np.array([4]), (1, 40)).shape == (1, 40, 64)
