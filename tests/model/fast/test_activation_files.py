"""States that later runs find again: the right ones, whole, and never in the way."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import resource
import shutil
import stat
from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.model.fast import prefix_activations as states_module
from mlxsched.model.fast.activation_files import SharedFolder
from mlxsched.model.fast.activation_key import activation_key
from mlxsched.model.fast.frozen_prefix import find_boundary
from mlxsched.model.fast.prefix_activations import ActivationStore, make_activations
from mlxsched.platform.caches import entries, hold

PROBE = mx.array([[1, 2, 3, 4]])
MEMORY = ActivationStore(10**9, None)


class Cache:
    """A folder of shared states; keeps what it was told, and counts the groups that were computed."""

    def __init__(self, folder, private):
        self.folder, self.private, self.notes = folder, private, []
        self.computed = 0

    def states(self, model, rows, *, max_tokens=100, limit=None, config=None, **options):
        gc.collect()  # an earlier "run" of this process lets go
        shared = SharedFolder(self.folder, "a model", config or {"rope_theta": 1}, self.notes.append)
        store = ActivationStore(0, self.private, shared)
        made = make_activations(
            model,
            find_boundary(model, PROBE),
            rows,
            store,
            groups=RowGroups.by_length(rows.lengths[:limit], max_tokens),
            **options,
        )
        if made is not None:
            self._count(made)
        return made

    def _count(self, made):
        compute = made._compute

        def counted(inputs):
            self.computed += 1
            return compute(inputs)

        made._compute = counted

    @property
    def keys(self):
        return {entry.path.name for entry in entries(self.folder)}


@pytest.fixture
def cache(tmp_path):
    (tmp_path / "private").mkdir()
    return Cache(tmp_path / "prefix", tmp_path / "private")


def everything(states, rows):
    return np.array(states.batch(np.arange(len(rows)), (len(rows), 40)))


def from_memory(model, rows):
    groups = RowGroups.by_length(rows.lengths, 100)
    return everything(make_activations(model, find_boundary(model, PROBE), rows, MEMORY, groups=groups), rows)


def fill(cache, model, rows):
    """What a first run does; gives the number of groups."""
    everything(cache.states(model, rows), rows)
    made, cache.computed = cache.computed, 0
    return made


def test_a_later_run_computes_nothing_and_gets_the_same_bits(cache, build, make_rows):
    rows = make_rows()
    fill(cache, build(), rows)
    assert cache.notes == []
    again = everything(cache.states(build(), rows), rows)
    assert cache.computed == 0
    count = int(rows.lengths.sum()) - len(rows)
    assert cache.notes == [f"frozen-prefix activations: 100% of {count} tokens found from an earlier run"]
    np.testing.assert_array_equal(again, from_memory(build(), rows))


def test_what_one_run_began_another_completes(cache, build, make_rows):
    model, rows = build(), make_rows()
    grouped = RowGroups.by_length(rows.lengths, 100)
    groups = int(grouped.sets.max()) + 1
    cache.states(model, rows).batch(np.array([3]), (1, 40))
    assert cache.computed == 1
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed == groups
    assert f"{len(grouped.of_row(3)) / len(rows):.0%} of" in cache.notes[0]


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_comes_back_to_the_bit(cache, build, make_rows, dtype):
    rows, models = make_rows(), [build(), build()]
    for model in models:
        model.set_dtype(dtype)
    first = cache.states(models[0], rows).batch(np.arange(4), (4, 40))
    again = cache.states(models[1], rows).batch(np.arange(4), (4, 40))
    assert again.dtype == dtype
    assert mx.array_equal(first, again).item()


def test_it_is_for_the_owner_only(cache, build, make_rows):
    cache.states(build(), make_rows()).batch(np.array([0]), (1, 40))
    (entry,) = cache.folder.iterdir()
    assert [stat.S_IMODE(path.stat().st_mode) for path in (cache.folder, entry)] == [0o700, 0o700]
    assert list(cache.private.iterdir()) == []


def test_without_posix_fallocate_too(cache, build, make_rows, monkeypatch):
    """As on macOS."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    rows = make_rows()
    fill(cache, build(), rows)
    np.testing.assert_array_equal(everything(cache.states(build(), rows), rows), from_memory(build(), rows))
    assert cache.computed == 0


# The key


def test_whatever_changes_the_states_changes_the_key(cache, build, make_rows):
    def key(model=None, rows=None, **options):
        before = cache.keys
        made = cache.states(model or build(), rows or make_rows(), **options)
        del made
        (new,) = cache.keys - before or {"old"}
        return new

    def with_other_weight(layer):
        model = build()
        norm = model.layers[layer].input_layernorm
        norm.weight = norm.weight + mx.zeros(64).at[5].add(1e-6)
        return model

    half = build()
    half.set_dtype(mx.bfloat16)
    assert key() != "old"
    assert key() == "old"
    assert key(with_other_weight(2)) == "old"  # above the boundary
    assert key(with_other_weight(1)) != "old"
    assert key(half) != "old"
    assert key(build(bits=4)) != "old"
    assert key(build(layers=1)) != "old"
    assert key(rows=make_rows(seed=1)) != "old"
    assert key(limit=5) != "old"
    assert key(max_tokens=200) != "old"
    assert key(compiled=False) != "old"
    assert key(config={"rope_theta": 2}) != "old"


def test_the_code_of_the_model_is_in_the_key(build, tmp_path):
    model, file = build(), tmp_path / "own.py"
    boundary = find_boundary(model, PROBE)
    keys = set()
    for factor in (1, 2):
        file.write_text(
            f"class Own:\n    def __call__(self, x):\n        return {factor} * super().__call__(x)\n"
        )
        spec = importlib.util.spec_from_file_location("own", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        model.__class__ = type("Model", (module.Own, type(build())), {})
        keys.add(activation_key(model, {}, boundary, {}))
    assert len(keys) == 2


# Damage


def test_a_torn_group_is_computed_again(cache, build, make_rows):
    model, rows = build(), make_rows()
    fill(cache, model, rows)
    (file,) = cache.folder.glob("*/states")
    with file.open("r+b") as content:
        content.seek(-1000, os.SEEK_END)  # the last row
        content.write(bytes(100))
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed == 1
    everything(cache.states(model, rows), rows)
    assert cache.computed == 1  # mended


def test_marks_without_states_are_not_believed(cache, build, make_rows):
    """What a power cut can leave: the marks reached the disk, the states did not."""
    model, rows = build(), make_rows()
    groups = fill(cache, model, rows)
    (file,) = cache.folder.glob("*/states")
    with file.open("r+b") as content:
        content.truncate(4096)
        content.truncate(4096 + 4 * 64 * int(rows.lengths.sum() - len(rows)))
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed == groups


@pytest.mark.parametrize("damage", ["not JSON", "another format", "cut off", "a directory"])
def test_a_damaged_entry_is_made_anew_with_a_note(cache, build, make_rows, damage):
    model, rows = build(), make_rows()
    groups = fill(cache, model, rows)
    (header,) = cache.folder.glob("*/header.json")
    if damage == "not JSON":
        header.write_text("{")
    elif damage == "another format":
        header.write_text(json.dumps({**json.loads(header.read_text()), "format": 99}))
    elif damage == "cut off":
        os.truncate(header.with_name("states"), 5000)
    else:
        header.unlink()
        header.mkdir()
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed == groups
    assert "damaged" in cache.notes[0]


def test_an_entry_whose_making_was_killed_is_made_anew(cache, build, make_rows):
    model, rows = build(), make_rows()
    groups = fill(cache, model, rows)
    (header,) = cache.folder.glob("*/header.json")
    header.unlink()
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed == groups
    assert header.exists()
    assert cache.notes == []


# Others, and no room


def test_while_another_has_them_a_run_keeps_its_own(cache, build, make_rows):
    model, rows = build(), make_rows()
    fill(cache, model, rows)
    gc.collect()
    (entry,) = cache.folder.iterdir()
    other = hold(entry)
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.computed > 0
    assert cache.notes == [
        "frozen-prefix activations: not stored for later runs, another process is writing the same ones"
    ]
    os.close(other)
    cache.computed = 0
    everything(cache.states(model, rows), rows)
    assert cache.computed == 0


def test_two_of_the_same_process_share(cache, build, make_rows):
    model, rows = build(), make_rows()
    first, second = cache.states(model, rows), cache.states(model, rows)
    everything(first, rows)
    made = cache.computed
    everything(second, rows)
    assert cache.computed == made
    assert list(cache.private.iterdir()) == cache.notes == []


def test_the_least_recently_used_go_when_room_is_needed(cache, build, make_rows, monkeypatch):
    model, old, new = build(), make_rows(), make_rows(seed=1)
    fill(cache, model, old)
    gc.collect()
    (size,) = [entry.size for entry in entries(cache.folder)]
    # a quarter of what would be free: one of them, not two
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * size))
    before = cache.keys
    holder = cache.states(model, new)
    assert len(cache.keys) == 1
    assert cache.keys != before
    everything(cache.states(model, old), old)  # the other one is in use, so there is no room
    assert cache.notes == ["frozen-prefix activations: not stored for later runs, there is no room for them"]
    assert len(cache.keys) == 1
    np.testing.assert_array_equal(everything(holder, new), from_memory(model, new))


def test_a_disk_that_refuses_leaves_nothing_behind(cache, build, make_rows):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        assert cache.states(build(), make_rows()) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(cache.folder.iterdir()) == []
    assert cache.notes == ["frozen-prefix activations: not stored for later runs, there is no room for them"]


def test_a_folder_that_can_not_be_made_is_told_of(cache, build, make_rows):
    model, rows = build(), make_rows()
    cache.folder.write_text("in the way")
    np.testing.assert_array_equal(everything(cache.states(model, rows), rows), from_memory(model, rows))
    assert cache.notes == ["frozen-prefix activations: not stored for later runs, File exists"]


def test_what_fits_into_memory_touches_no_disk(cache, build, make_rows):
    shared = SharedFolder(cache.folder, "a model", {}, cache.notes.append)
    model = build()
    store = ActivationStore(10**9, cache.private, shared)
    rows = make_rows()
    groups = RowGroups.by_length(rows.lengths, 100)
    states_module.make_activations(model, find_boundary(model, PROBE), rows, store, groups=groups)
    assert not cache.folder.exists()
