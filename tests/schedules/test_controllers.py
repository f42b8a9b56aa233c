"""Controllers: torch's and transformers' decisions, state, and one trace under mx.compile."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
import pytest

import mlxsched as ms
from mlxsched.schedules.controllers import Controller

GOLDEN = json.loads((Path(__file__).parent.parent / "golden" / "adaptive.json").read_text())


def made_by(trace: dict[str, Any]) -> Any:
    if trace["name"] == "plateau":
        return ms.from_dict({"name": "torch.ReduceLROnPlateau", **trace["arguments"]})
    arguments = dict(trace["arguments"])
    return ms.from_hf("greedy", arguments.pop("lr"), lr_scheduler_kwargs=arguments)


@pytest.mark.parametrize("trace", GOLDEN["traces"])
def test_controllers_decide_as_their_originals(trace: dict[str, Any]) -> None:
    controller = made_by(trace)
    rates = [controller(0)]
    for metric in GOLDEN["curves"][trace["curve"]]:
        controller.observe(metric)
        rates.append(controller(0))
    np.testing.assert_allclose(rates, trace["values"], rtol=1e-6)


def test_the_recorded_runs_do_change_the_rate() -> None:
    changes = {trace["name"]: 0 for trace in GOLDEN["traces"]}
    for trace in GOLDEN["traces"]:
        changes[trace["name"]] += len(set(trace["values"])) - 1
    assert changes["plateau"] >= 5 and changes["greedy"] >= 10


def controllers() -> list[Controller]:
    base = ms.warmup_constant(2e-4, 10)
    return [
        ms.plateau(base, patience=1, cooldown=1),
        ms.greedy(base, patience=1, window=3, reset_after=2, min_factor=0.6),
    ]


NAN = float("nan")
METRICS = [
    2.0,
    1.9,
    1.8,
    1.7,
    1.9,
    1.95,
    2.0,
    NAN,
    2.1,
    2.0,
    2.2,
    2.3,
    1.0,
    0.9,
    0.8,
    0.7,
    0.9,
    1.0,
    1.1,
    1.2,
]


@pytest.mark.parametrize("controller", controllers(), ids=["plateau", "greedy"])
@pytest.mark.parametrize("cut", [0, 5, 11])
def test_state_is_json_and_resumes_exactly(controller: Controller, cut: int) -> None:
    straight, first = controller.replace(), controller.replace()
    for metric in METRICS[:cut]:
        first.observe(metric)
    resumed = ms.from_dict(json.loads(json.dumps(controller.to_dict())))
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for metric in METRICS[:cut]:
        straight.observe(metric)
    for metric in METRICS[cut:]:
        straight.observe(metric)
        resumed.observe(metric)
        assert resumed.factor == straight.factor
        assert resumed(50) == straight(50) == pytest.approx(2e-4 * straight.factor)
    assert resumed.state_dict() == straight.state_dict()


@pytest.mark.parametrize("controller", controllers(), ids=["plateau", "greedy"])
def test_forms_hold_the_arguments_and_copies_the_state(controller: Controller) -> None:
    seen = controller.replace()
    for metric in METRICS:
        seen.observe(metric)
    assert seen == controller and hash(seen) == hash(controller)
    assert ms.parse(repr(seen)) == controller and ms.parse(repr(seen)).factor == 1.0
    for twin in (pickle.loads(pickle.dumps(seen)), copy.deepcopy(seen)):  # noqa: S301 - our own bytes
        assert twin == seen and twin.state_dict() == seen.state_dict()
        before = seen.state_dict()
        twin.observe(0.1)
        assert seen.state_dict() == before


def test_a_wrong_state_is_refused() -> None:
    plateau, greedy = controllers()
    with pytest.raises(ms.ScheduleError, match="keys"):
        plateau.load_state_dict(greedy.state_dict())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [({"decay_rate": 1.0}, "decay_rate"), ({"mode": "most"}, "mode"), ({"min_factor": 2.0}, "min_factor")],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.plateau(ms.constant(1e-4), **arguments)


def test_the_defaults_can_move_a_lora_rate_both_ways() -> None:
    controller = ms.greedy(ms.constant(2e-4))
    for step in range(100):
        controller.observe(1.0 + step)
    assert controller(0) == pytest.approx(2e-4 * 0.05)
    for step in range(200):
        controller.observe(-1.0 - step)
    assert controller(0) == pytest.approx(2e-4 * 4)


class OneTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = mx.zeros(3)


def train(controller: Controller, compiled: bool, by_setter: bool) -> tuple[list[float], int]:
    """Each update's step of SGD with gradient 1, so the rate that was used; and how often it was traced."""
    model, traced = OneTensor(), 0
    optimizer = optim.SGD(learning_rate=0.0 if by_setter else controller)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state] + ([] if by_setter else [controller.state])

    def update() -> mx.array:
        nonlocal traced
        traced += 1
        loss, gradient = nn.value_and_grad(model, lambda m: m.w.sum())(model)
        optimizer.update(model, gradient)
        return loss

    step = mx.compile(update, inputs=state, outputs=state) if compiled else update
    rates = []
    for index, metric in enumerate(METRICS):
        if by_setter:
            optimizer.learning_rate = controller(index)
        before = model.w[0].item()
        mx.eval(step(), state)
        rates.append(before - model.w[0].item())
        controller.observe(metric)
    return rates, traced


@pytest.mark.parametrize("controller", controllers(), ids=["plateau", "greedy"])
@pytest.mark.parametrize("by_setter", [False, True], ids=["state", "setter"])
def test_a_compiled_step_follows_the_factor_in_one_trace(controller: Controller, by_setter: bool) -> None:
    twin = controller.replace()
    expected = []
    for step, metric in enumerate(METRICS):
        expected.append(twin(step))
        twin.observe(metric)
    assert len({twin.factor, 1.0, *(rate / 2e-4 for rate in expected[10:])}) > 2
    eager, _ = train(controller.replace(), compiled=False, by_setter=by_setter)
    compiled, traced = train(controller.replace(), compiled=True, by_setter=by_setter)
    np.testing.assert_allclose(eager, expected, rtol=2e-3, atol=1e-9)
    np.testing.assert_allclose(compiled, expected, rtol=2e-3, atol=1e-9)
    assert traced == 1
