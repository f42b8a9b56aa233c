"""Sequence packing: the loss and gradients of each row alone, or not used."""

from __future__ import annotations

import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.row_groups import RowGroups
from mlxsched.model.fast.prefix_activations import ActivationStore, make_activations
from mlxsched.model.fast.samples import packed_sample
from mlxsched.model.fast.selection import choose_path, with_packing
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.loss import PLAIN_LOSS
from mlxsched.runs.events import Notice

PACKING = Packing(48, 4)
GPT2 = {"n_embd": 64, "n_head": 4, "n_layer": 4, "n_positions": 128, "n_ctx": 128, "layer_norm_epsilon": 1e-5}
PREFIX = {"prefix": True}
WINDOWED = {"sliding_window": 8, "sliding_window_pattern": 2}


def packed_path(model, rows, wanted=PREFIX):
    notes = []
    path = choose_path(SelfCheck(model, rows), notes.append, **wanted)
    check = SelfCheck(model, rows, PLAIN_LOSS, packing=PACKING)
    return with_packing(check, path, PACKING, notes.append), notes


def row_by_row(model, rows, indices, n_targets):
    def loss_of(model):
        total = mx.array(0.0)
        for index in indices:
            tokens, targets = rows[index]
            logits = model(mx.array(tokens[None, :-1]))[0]
            losses = nn.losses.cross_entropy(logits, mx.array(tokens[1:]))
            total = total + (losses * mx.array(targets[1:].astype(np.float32))).sum()
        return total / n_targets

    loss, gradients = nn.value_and_grad(model, loss_of)(model)
    return loss.item(), dict(tree_flatten(gradients))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {}), ("granite", {}), ("gemma3_text", WINDOWED)],
)
@pytest.mark.parametrize("wanted", [{}, {"prefix": True, "checkpoint": 1}])
def test_packed_rows_equal_rows_alone(build, make_rows, compiled_gradients, kind, changes, wanted):
    model, rows = build(kind, **changes), make_rows()
    path, notes = packed_path(model, rows, wanted)
    assert path.packing is PACKING, notes
    assert (path.boundary is not None) == bool(wanted)
    (lines,) = PACKING.micro_batches(np.arange(4, 12), rows.lengths)
    batch = PACKING.collate(rows, lines)
    if path.boundary:
        store = ActivationStore(10**9, None)
        groups = RowGroups.by_length(rows.lengths, 100)
        path = replace(path, activations=make_activations(model, path.boundary, rows, store, groups=groups))
    arrays = path.arrays(batch, batch.n_targets)
    loss, got = compiled_gradients(model, path, arrays)
    expected_loss, expected = row_by_row(model, rows, range(4, 12), batch.n_targets)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    distance = np.sqrt(sum(float(mx.square(got[path] - g).sum()) for path, g in expected.items()))
    norm = np.sqrt(sum(float(mx.square(g).sum()) for g in expected.values()))
    assert norm > 0.01
    assert distance < 1e-4 * norm


def test_the_check_has_both_kinds_of_micro_batch(build, make_rows):
    check = SelfCheck(build(), make_rows(), PLAIN_LOSS, packing=PACKING)
    padded, packed = (sample.batch for sample in check._samples)
    assert padded.segments is None
    lines = [segments[places] for segments, places in zip(packed.segments, packed.weights > 0, strict=True)]
    assert len(lines) > 1 and any(
        len(set(line)) > 1 for line in lines
    )  # rows that share a line, and several lines


def test_the_check_takes_few_positions_of_long_rows(make_rows):
    alone, packed = packed_sample(make_rows(), PACKING, vocabulary=10**9)
    assert {batch.shape[0] for batch in alone} == {1}
    assert max(batch.shape[1] for batch in alone) == 16
    assert sum(batch.n_targets for batch in alone) == packed.n_targets > 6


def test_positions_counted_from_the_start_of_the_line_are_found_out(build, make_rows):
    path, notes = packed_path(build("gpt2", **GPT2), make_rows())
    assert path.packing is None
    assert any(note.startswith("sequence packing: not used, its loss differs") for note in notes)


def test_a_model_without_a_cache_argument_stays_as_it_is(build, make_rows):
    class Bare(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        @property
        def layers(self):
            return self.inside.layers

        def __call__(self, inputs):
            return self.inside(inputs)

    path, notes = packed_path(Bare(build()), make_rows())
    assert path.packing is None and path.head is not None
    assert any(note == "sequence packing: not used, this model does not support it" for note in notes)


def test_layers_below_the_stored_activations_are_checked_too(build, make_rows):
    """A first layer that makes its own mask is hidden by stored activations; without them it would be wrong."""
    model = build()

    class OwnMask(type(model.layers[0])):
        def __call__(self, x, mask=None, cache=None):
            return super().__call__(x, "causal", None)

    model.layers[0].__class__ = OwnMask
    path, _ = packed_path(model, make_rows())
    assert path.boundary is not None and path.packing is None


# Whole runs


@pytest.fixture
def short_data(tmp_path):
    generator = np.random.default_rng(0)
    folder = tmp_path / "data"
    folder.mkdir()
    for split, count in (("train", 96), ("valid", 8)):
        letters = generator.choice(list("abcdefgh12345"), (count, 12))
        lines = ["".join(line[: generator.integers(3, 13)]) for line in letters]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return str(folder)


def losses(run, kind="train"):
    records = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    return np.array([record["loss"] for record in records if record["kind"] == kind])


FLAGS = {"batch_size": 32, "iters": 9, "num_layers": 2, "learning_rate": 1e-3, "save_every": 5}


def test_short_rows_are_packed_by_default_and_train_the_same(train, session, parts_of, short_data):
    packed, _, events = train("packed", data=short_data, **FLAGS)
    assert parts_of(session(data=short_data, **FLAGS))[0].training.packing is not None
    plain, _, _ = train("plain", data=short_data, fast=False, **FLAGS)
    assert not [event for event in events if isinstance(event, Notice)]
    np.testing.assert_allclose(losses(packed), losses(plain), rtol=1e-4)
    np.testing.assert_allclose(losses(packed)[0], losses(plain)[0], rtol=1e-5)
    np.testing.assert_allclose(losses(packed, "eval"), losses(plain, "eval"), rtol=1e-4)


def test_resume_of_a_packed_run_is_bit_identical(train, interrupted, resume, short_data):
    whole, _, _ = train("whole", data=short_data, **FLAGS)
    made, path = interrupted("parts", 7, data=short_data, **FLAGS)  # two updates beyond the checkpoint at 5
    parts, _ = resume(made, path)
    assert parts.info.short_cuts["training"]["packed"]
    assert (losses(parts) == losses(whole)).all()
    name = "adapters/adapters.safetensors"
    assert (path / name).read_bytes() == (whole.path / name).read_bytes()


def test_off_when_the_config_says_so(session, parts_of, short_data):
    assert parts_of(session(data=short_data, packing=False, **FLAGS))[0].training.packing is None


def test_asked_for_where_no_line_holds_a_row(train, short_data, tmp_path):
    path = tmp_path / "data" / "train.jsonl"
    path.write_text((json.dumps({"text": "1234 " * 200}) + "\n") * 8)
    _, _, events = train(data=short_data, packing=True, iters=1)
    notes = [event.message for event in events if isinstance(event, Notice)]
    assert any(note.startswith("sequence packing: not used, every row is longer") for note in notes)


@pytest.fixture
def mixed_data(short_data, tmp_path):
    """Many very short rows and a few that no line holds."""
    path = tmp_path / "data" / "train.jsonl"
    lines = path.read_text().splitlines()
    lines[10:90:20] = [json.dumps({"text": f"{number} 1234 " * 60}) for number in range(4)]
    path.write_text("\n".join(lines) + "\n")
    return short_data


def test_long_rows_go_beside_the_lines_and_train_the_same(train, session, parts_of, mixed_data):
    _, _, loader = parts_of(session(data=mixed_data, **FLAGS))
    counts = {len(arrays) for update in range(3) for arrays in loader(update).arrays}
    assert counts == {5, 6}  # without and with segments, besides the states
    packed, _, events = train("packed", data=mixed_data, **FLAGS)
    plain, _, _ = train("plain", data=mixed_data, fast=False, **FLAGS)
    assert not [event for event in events if isinstance(event, Notice)]
    np.testing.assert_allclose(losses(packed), losses(plain), rtol=1e-4)
    np.testing.assert_allclose(losses(packed)[0], losses(plain)[0], rtol=1e-5)
