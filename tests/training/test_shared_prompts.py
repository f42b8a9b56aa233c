"""Training with shared prompts: the same losses as with whole rows, bit-identical after a resume, off where it does not go."""

from __future__ import annotations

import json

import mlx.core as mx
import numpy as np
import pytest

from mlxsched.model.trees import flatten
from mlxsched.training.acceleration import accelerate
from mlxsched.training.assembly import make_engine, make_loader, make_pace

SYSTEM = "You write formulas for a spreadsheet. Answer with the formula alone, in upper case, from the first cell on. "


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Chats with one long system prompt, one row in six without."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for split, count in (("train", 24), ("valid", 6)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for number in range(count):
                cells = [f"A{n}" for n in generator.integers(1, 9, generator.integers(1, 4))]
                messages = [
                    {"role": "user", "content": f"the sum of {' and '.join(cells)}"},
                    {"role": "assistant", "content": f"=SUM({','.join(cells)})"},
                ]
                if number % 6 or split == "valid":
                    messages.insert(0, {"role": "system", "content": 2 * SYSTEM})
                file.write(json.dumps({"messages": messages}) + "\n")
    return folder


@pytest.fixture
def uncompiled():
    """Building kernels takes longer than all else here; the resumed run below is compiled."""
    mx.disable_compile()
    yield
    mx.enable_compile()


def losses(session, updates=3):
    acceleration = accelerate(session, None, lambda text: None)
    engine = make_engine(session, acceleration.training)
    loader = make_loader(session, acceleration.training, make_pace(session))
    found = []
    for update in range(updates):
        batches = loader(update)
        found.append(engine.update(batches, 1e-3).loss)
    return found, batches, flatten(engine.tree())


@pytest.mark.parametrize("flags", [{}, {"grad_checkpoint": True, "mask_prompt": False}])
def test_the_losses_and_the_adapter_are_those_of_whole_rows(session, data, uncompiled, flags):
    settings = {"data": str(data), "batch_size": 8, "iters": 3, **flags}
    (shared, batches, adapter), (whole, others, expected) = (
        losses(session(**settings, share_prompts=share)) for share in (None, False)
    )
    assert batches.groups and not others.groups
    assert batches.n_targets == others.n_targets
    assert shared == pytest.approx(whole, rel=1e-5)
    apart = sum(float(((adapter[name] - value) ** 2).sum()) for name, value in expected.items())
    assert apart < 1e-6 * sum(float((value**2).sum()) for value in expected.values())


def test_the_plan_says_what_is_shared(session, data):
    from mlxsched.cli.plan_view import micro_batches_json, plan_lines

    made = session(data=str(data), batch_size=8)
    sharing = micro_batches_json(made)["shared_prompts"]
    assert sharing["lengths"] and 0.3 < sharing["saved"] < 1
    assert "are computed once; this saves about" in dict(plan_lines(made))["micro-batches"]


@pytest.mark.parametrize(
    "flags",
    [{"share_prompts": False}, {"fast": False}, {"lora_parameters": {"dropout": 0.1}}, {"packing": True}],
)
def test_it_is_off_where_it_is_turned_off_or_does_not_go(session, data, flags):
    assert session(data=str(data), batch_size=8, **flags).batching.sharing is None


def test_stored_activations_of_frozen_layers_take_its_place_where_they_save_more(session, data):
    settings = {"data": str(data), "batch_size": 4, "epochs": 9, "iters": None}
    assert session(**settings, num_layers=4).batching.sharing is not None
    assert session(**settings, num_layers=1).batching.sharing is None


def test_a_resumed_run_is_bit_identical(train, interrupted, resume, data):
    settings = {"data": str(data), "batch_size": 8, "iters": 4, "save_every": 2, "steps_per_eval": 4}
    run, _, _ = train("whole", **settings)
    info = json.loads((run.path / "run.json").read_text())
    assert (
        info["short_cuts"]["training"]["shared_prefix"] and info["short_cuts"]["validation"]["shared_prefix"]
    )
    made, path = interrupted("stopped", 3, **settings)
    again, _ = resume(made, path)
    names = ("adapters_final", "adapters")
    (folder,) = [n for n in names if (run.path / n).is_dir()][:1]
    file = f"{folder}/adapters.safetensors"
    assert (run.path / file).read_bytes() == (again.path / file).read_bytes()
