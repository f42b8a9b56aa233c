"""Our aliases against what the libraries themselves gave (tests/golden, made by scripts/record_traces.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import mlxsched as ms
from mlxsched.schedules.base import Schedule
from mlxsched.schedules.registry import alias_names, entry

GOLDEN = Path(__file__).parents[2] / "golden"
SPEC_PEERS = ("torch", "optax", "timm", "keras", "fastai")


def traces(peer: str) -> list[Any]:
    recorded = json.loads((GOLDEN / f"{peer}.json").read_text())["traces"]
    return [pytest.param(trace, id=f"{peer}.{trace['name']}-{i}") for i, trace in enumerate(recorded)]


def check(schedule: Schedule, trace: dict[str, Any]) -> None:
    """float64 within 1e-6 of the recorded value, and within 1e-12 of the peak where that is about 0."""
    expected = np.array(trace["values"])
    peak = float(np.abs(expected).max())
    at = trace["steps"]
    np.testing.assert_allclose([schedule(step) for step in at], expected, rtol=1e-6, atol=1e-12 * peak)
    np.testing.assert_allclose(schedule(np.array(at)), expected, rtol=1e-6, atol=1e-12 * peak)


def check_float32(schedule: Schedule, trace: dict[str, Any]) -> None:
    """The same for the uint64 steps that MLX's optimizers hand over."""
    expected = np.array(trace["values"])
    peak = float(np.abs(expected).max())
    single = schedule(mx.array(trace["steps"], mx.uint64))
    np.testing.assert_allclose(np.array(single, np.float64), expected, rtol=2e-6, atol=1e-7 * peak)


@pytest.mark.parametrize("trace", [case for peer in SPEC_PEERS for case in traces(peer)])
def test_alias_has_the_librarys_values(trace: dict[str, Any], request: pytest.FixtureRequest) -> None:
    peer = request.node.callspec.id.partition(".")[0]
    schedule = ms.from_dict({"name": f"{peer}.{trace['name']}", **trace["arguments"]})
    check(schedule, trace)
    check_float32(schedule, trace)


@pytest.mark.parametrize("trace", traces("hf"))
def test_from_hf_has_transformers_values(trace: dict[str, Any]) -> None:
    schedule = ms.from_hf(trace["name"], **trace["arguments"])
    check(schedule, trace)
    check_float32(schedule, trace)


def check_mlx(schedule: Schedule, trace: dict[str, Any]) -> None:
    """MLX records its own float32: an MLX step gets the same, a Python step the exact value nearby."""
    expected = np.array(trace["values"])
    peak = float(np.abs(expected).max())
    single = [float(schedule(mx.array(step, mx.uint64))) for step in trace["steps"]]
    np.testing.assert_allclose(single, expected, rtol=1e-6, atol=1e-9 * peak)
    exact = [schedule(step) for step in trace["steps"]]
    np.testing.assert_allclose(exact, expected, rtol=3e-6, atol=2e-7 * peak)


@pytest.mark.parametrize("trace", traces("mlx_lm"))
def test_from_mlx_lm_has_mlx_lms_values(trace: dict[str, Any]) -> None:
    check_mlx(ms.from_mlx_lm({"name": trace["name"], **trace["arguments"]}), trace)


@pytest.mark.parametrize("trace", traces("mlx"))
def test_mlx_names_have_mlxs_values(trace: dict[str, Any]) -> None:
    check_mlx(ms.from_dict({"name": trace["name"], **trace["arguments"]}), trace)


@pytest.mark.parametrize("trace", traces("mlx_lm"))
def test_from_mlx_lm_is_mlx_lms_own_float32(trace: dict[str, Any]) -> None:
    from mlx_lm.tuner.utils import build_schedule

    block = {"name": trace["name"], **trace["arguments"]}
    for step in trace["steps"]:
        at = mx.array(step, mx.uint64)
        assert mx.array_equal(ms.from_mlx_lm(block)(at), build_schedule(block)(at)), step


def test_a_block_from_a_public_report_has_mlx_lms_rates() -> None:
    """ml-explore/mlx-examples#985 and mlx-lm#579: what warmup_init and arguments mean."""
    from mlx_lm.tuner.utils import build_schedule

    block = {"name": "cosine_decay", "warmup": 4, "warmup_init": 1e-7, "arguments": [1e-4, 7, 1e-6]}
    ours, theirs = ms.from_mlx_lm(block), build_schedule(block)
    for update in range(12):
        assert ours(update) == pytest.approx(float(theirs(mx.array(update))), abs=1e-10)


def every_recorded_schedule() -> list[Schedule]:
    made = []
    for peer in SPEC_PEERS:
        for trace in json.loads((GOLDEN / f"{peer}.json").read_text())["traces"]:
            made.append(ms.from_dict({"name": f"{peer}.{trace['name']}", **trace["arguments"]}))
    for trace in json.loads((GOLDEN / "hf.json").read_text())["traces"]:
        made.append(ms.from_hf(trace["name"], **trace["arguments"]))
    return made


def test_what_an_alias_makes_prints_and_saves() -> None:
    for schedule in every_recorded_schedule():
        assert ms.parse(repr(schedule)) == schedule
        assert ms.from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
        assert schedule.phases[-1].end is None


def test_every_alias_has_a_trace_or_is_a_controller() -> None:
    recorded = {
        f"{peer}.{trace['name']}"
        for peer in (*SPEC_PEERS, "hf")
        for trace in json.loads((GOLDEN / f"{peer}.json").read_text())["traces"]
    }
    controllers = {"hf.reduce_lr_on_plateau", "hf.greedy", "torch.ReduceLROnPlateau", "timm.plateau"}
    assert set(alias_names()) == recorded | controllers


def test_an_alias_can_be_written_as_a_spec() -> None:
    spec = "torch.OneCycleLR(max_lr=1e-3, total_steps=100)"
    assert ms.parse(spec)(99) == pytest.approx(4e-9)
    nested = "scale(schedule=optax.piecewise_constant_schedule(1e-3, [[10, 0.5]]), factor=2.0)"
    assert ms.parse(nested)(10) == pytest.approx(1e-3)
    assert entry("hf.cosine").group == "compat.hf"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("torch.OneCycleLr(max_lr=1e-3)", "torch.OneCycleLR"),
        ("hf.cosin(learning_rate=1e-3)", "hf.cosine"),
        ("os.system('ls')", "no schedule is called 'os.system'"),
        ("hf.cosine.linear(learning_rate=1e-3)", "cannot read"),
        ("torch.StepLR(lr=1e-3, step=3)", "step_size"),
    ],
)
def test_wrong_names_are_refused_with_a_suggestion(text: str, hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.parse(text)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"lr_scheduler_type": "cosin"}, "Did you mean 'cosine'"),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycle": 2}},
            "Did you mean 'num_cycles'",
        ),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "min_lr_rate"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}}, "lr_end"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps"),
        ({"lr_scheduler_type": "greedy"}, "never let the rate fall"),
        ({"lr_scheduler_type": "linear", "warmup_ratio": -0.1}, "warmup_ratio"),
    ],
)
def test_from_hf_refuses_what_does_not_fit(arguments: dict[str, Any], hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.from_hf(**{"learning_rate": 2e-4, "num_training_steps": 100, **arguments})


@pytest.mark.parametrize(
    ("block", "hint"),
    [
        ({"name": "cosine_deca", "arguments": [1e-5, 10]}, "Did you mean 'cosine_decay'"),
        ({"name": "cosine_decay", "arguments": [1e-5, 10], "warmups": 3}, "Did you mean 'warmup'"),
        ({"name": "cosine_decay", "arguments": [1e-5]}, "arguments"),
        ({"name": "cosine_decay"}, "arguments"),
        ({"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": 0.1}, "warmup"),
    ],
)
def test_from_mlx_lm_refuses_what_does_not_fit(block: dict[str, Any], hint: str) -> None:
    with pytest.raises(ms.ScheduleError, match=hint):
        ms.from_mlx_lm(block)


def test_transformers_cosine_rises_again_and_ours_does_not() -> None:
    theirs = ms.from_hf("cosine", learning_rate=1e-3, num_training_steps=100)
    ours = ms.parse("cosine(init=1e-3, steps=100)")
    assert theirs(50) == pytest.approx(ours(50))
    assert theirs(200) == pytest.approx(1e-3)
    assert ours(200) == 0.0
