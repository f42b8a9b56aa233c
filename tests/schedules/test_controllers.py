"""Controllers: torch's and transformers' decisions, states as values, and one trace under mx.compile."""

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


def after(controller: Controller, metrics: list[float], state: Any = None) -> Any:
    """The state after some observations."""
    state = controller.init() if state is None else state
    for metric in metrics:
        state = controller.observe(state, metric)
    return state


@pytest.mark.parametrize("trace", GOLDEN["traces"])
def test_controllers_decide_as_their_originals(trace: dict[str, Any]) -> None:
    controller = made_by(trace)
    state = controller.init()
    rates = [controller.rate(state, 0)]
    for metric in map(float, GOLDEN["curves"][trace["curve"]]):
        state = controller.observe(state, metric)
        rates.append(controller.rate(state, 0))
    np.testing.assert_allclose(rates, trace["values"], rtol=1e-9)


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
METRICS = [2.0, 1.9, 1.8, 1.7, 1.9, 1.95, 2.0, NAN, 2.1, 2.0,
           2.2, 2.3, 1.0, 0.9, 0.8, 0.7, 0.9, 1.0, 1.1, 1.2]  # fmt: skip
BOTH = pytest.mark.parametrize("controller", controllers(), ids=["plateau", "greedy"])


@BOTH
@pytest.mark.parametrize("cut", [0, 5, 11])
def test_a_state_is_json_and_continues_exactly(controller: Controller, cut: int) -> None:
    saved = json.dumps(after(controller, METRICS[:cut]).to_dict(), allow_nan=False)
    twin = ms.from_dict(json.loads(json.dumps(controller.to_dict())))
    state, resumed = after(controller, METRICS[:cut]), twin.state_from(json.loads(saved))
    assert resumed == state
    for metric in METRICS[cut:]:
        state, resumed = controller.observe(state, metric), twin.observe(resumed, metric)
        assert resumed == state
        assert twin.rate(resumed, 50) == controller.rate(state, 50) == pytest.approx(2e-4 * state.factor)
    assert state.factor != 1


@BOTH
def test_a_controller_and_its_states_are_values(controller: Controller) -> None:
    before = (hash(controller), repr(controller), controller(50), dict(vars(controller)))
    first = controller.init()
    state = after(controller, METRICS)
    assert (hash(controller), repr(controller), controller(50), vars(controller)) == before
    assert first == controller.init() != state
    assert after(controller.replace(), METRICS) == state  # `replace` loses nothing: nothing is hidden
    assert ms.parse(repr(controller)) == controller == pickle.loads(pickle.dumps(controller))  # noqa: S301
    assert pickle.loads(pickle.dumps(state)) == state == copy.deepcopy(state)  # noqa: S301
    with pytest.raises(AttributeError):
        state.factor = 2.0


@BOTH
def test_a_live_controller_is_the_same_thing_with_an_identity(controller: Controller) -> None:
    live, other = controller.live(), controller.live()
    assert live != other and live == live and len({live, other}) == 2
    for metric in METRICS:
        live.observe(metric)
    state = after(controller, METRICS)
    assert live.observed == state and live.factor == state.factor != other.factor == 1
    assert live(50) == controller.rate(state, 50)
    np.testing.assert_array_equal(live(np.array([0, 50])), controller.rate(state, np.array([0, 50])))
    assert live(mx.array(50)).item() == pytest.approx(live(50), rel=1e-6)
    for twin in (pickle.loads(pickle.dumps(live)), copy.deepcopy(live)):  # noqa: S301 - our own bytes
        twin.observe(0.1)
        assert live.observed == state != twin.observed
    other.load_state_dict(json.loads(json.dumps(live.state_dict())))
    assert other.observed == state and other.state[0].item() == pytest.approx(state.factor)
    other.reset()
    assert other.observed == controller.init() and other.state[0].item() == 1
    assert (live.steps, live.phases, live.to_dict()) == (
        controller.steps,
        controller.phases,
        controller.to_dict(),
    )


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        ({"factor": -3}, "factor"),
        ({"factor": 0.001}, "factor"),
        ({"factor": 1.5}, "factor"),
        ({"factor": NAN}, "factor"),
        ({"factor": "1"}, "factor"),
        ({"factor": None}, "factor"),
        ({"best": NAN}, "best"),
        ({"best": [2.0]}, "best"),
        ({"bad": -1}, "bad"),
        ({"bad": 1.5}, "bad"),
        ({"bad": 10**400}, "bad"),
        ({"cooling": True}, "cooling"),
        ({"extra": 1}, "keys"),
    ],
)
def test_a_state_that_cannot_be_is_refused(change: dict[str, Any], hint: str) -> None:
    controller, _ = controllers()
    good = after(controller, METRICS).to_dict()
    with pytest.raises(ms.ScheduleError, match=hint):
        controller.state_from(good | change)
    with pytest.raises(ms.ScheduleError, match=hint):
        controller.live().load_state_dict(good | change)


def test_a_state_of_another_kind_is_refused() -> None:
    plateau, greedy = controllers()
    for wrong in (greedy.init().to_dict(), {}, None, [], "state"):
        with pytest.raises(ms.ScheduleError, match="keys"):
            plateau.state_from(wrong)
    with pytest.raises(ms.ScheduleError, match="recent"):
        greedy.state_from(greedy.init().to_dict() | {"recent": [1.0, NAN]})
    with pytest.raises(ms.ScheduleError, match="recent"):
        greedy.state_from(greedy.init().to_dict() | {"recent": 3})


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [({"decay_rate": 1.0}, "decay_rate"), ({"mode": "most"}, "mode"), ({"min_factor": 2.0}, "min_factor")],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.plateau(ms.constant(1e-4), **arguments)


def test_the_defaults_can_move_a_lora_rate_both_ways() -> None:
    controller = ms.greedy(ms.constant(2e-4))
    worse = after(controller, [1.0 + step for step in range(100)])
    assert controller.rate(worse, 0) == pytest.approx(2e-4 * 0.05)
    better = after(controller, [-1.0 - step for step in range(200)], worse)
    assert controller.rate(better, 0) == pytest.approx(2e-4 * 4)


class OneTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = mx.zeros(3)


def train(live: ms.LiveController, compiled: bool, by_setter: bool) -> tuple[list[float], int]:
    """Each update's step of SGD with gradient 1, which is the rate that was used; and how often it was traced."""
    model, traced = OneTensor(), 0
    optimizer = optim.SGD(learning_rate=0.0 if by_setter else live)
    optimizer.init(model.trainable_parameters())
    state = [model.state, optimizer.state] + ([] if by_setter else [live.state])

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
            optimizer.learning_rate = live(index)
        before = model.w[0].item()
        mx.eval(step(), state)
        rates.append(before - model.w[0].item())
        live.observe(metric)
    return rates, traced


@BOTH
@pytest.mark.parametrize("by_setter", [False, True], ids=["state", "setter"])
def test_a_compiled_step_follows_the_factor_in_one_trace(controller: Controller, by_setter: bool) -> None:
    states = [after(controller, METRICS[:step]) for step in range(len(METRICS))]
    expected = [controller.rate(state, step) for step, state in enumerate(states)]
    assert len({state.factor for state in states}) > 2
    eager, _ = train(controller.live(), compiled=False, by_setter=by_setter)
    compiled, traced = train(controller.live(), compiled=True, by_setter=by_setter)
    np.testing.assert_allclose(eager, expected, rtol=2e-3, atol=1e-9)
    np.testing.assert_allclose(compiled, expected, rtol=2e-3, atol=1e-9)
    assert traced == 1


def test_a_greedy_state_of_an_earlier_version_has_no_total() -> None:
    _, controller = controllers()
    state = after(controller, METRICS[:6])
    old = state.to_dict()
    assert old.pop("total") == pytest.approx(sum(state.recent))
    resumed = controller.state_from(old)
    for metric in METRICS[6:]:
        state, resumed = controller.observe(state, metric), controller.observe(resumed, metric)
        assert (resumed.factor, resumed.recent) == (state.factor, state.recent)


def test_infinite_metrics_leave_no_trace_but_a_failure() -> None:
    """In torch -inf becomes the best for good, and transformers' window is NaN from the first infinity on."""
    for controller in controllers():
        for wrong in (float("inf"), -float("inf"), NAN):
            state = after(controller, [wrong, 3.0])
            assert state.best == 3.0 and state.bad == 0
            json.dumps(after(controller, [wrong, 3.0, wrong]).to_dict(), allow_nan=False)
    tolerant = ms.plateau(ms.constant(2e-4), patience=3)
    assert after(tolerant, [float("inf"), float("inf"), 3.0, 2.9, 2.8, 2.7, 2.6]).factor == 1.0
