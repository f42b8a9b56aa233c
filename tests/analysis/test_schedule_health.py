"""Each code on a schedule that has the fault, on one that lacks it, and with numbers computed by hand."""

from __future__ import annotations

import math

import pytest

from mlxsched.analysis.schedule_health import RunFacts, ScheduleFinding, is_healthy, schedule_health
from mlxsched.analysis.schedule_repair import repaired, target_of, with_fixes
from mlxsched.render.describe import example_spec
from mlxsched.schedules import from_mlx_lm, parse
from mlxsched.schedules.registry import alias_names, entry, names


def found(spec: str, updates: int = 1000, **facts: object) -> dict[str, ScheduleFinding]:
    return {one.code: one for one in schedule_health(parse(spec), RunFacts(updates, **facts))}


HEALTHY = [
    "warmup_cosine(peak=2e-4, steps=1000, warmup=50)",
    "warmup_linear(peak=2e-4, steps=1000, warmup=100)",
    "wsd(peak=2e-4, steps=1000, warmup=50, decay=0.2)",
    "one_cycle(peak=1e-3, steps=1000)",
    "piecewise(boundaries=[0, 100, 600, 1000], values=[0.0, 2e-4, 1e-4, 0.0])",
    "hf.cosine_with_min_lr(2e-4, 1000, 100, min_lr=2e-5)",
]
FAULTS = [  # spec, updates, code, update, a number of the evidence
    ("linear(init=2e-4, steps=1000)", 1000, "no_warmup", 0, "100%"),
    ("warmup_linear(peak=2e-4, steps=1000, warmup=300)", 1000, "warmup_too_long", 300, "30%"),
    (
        "piecewise(boundaries=[0, 50, 400, 401, 402, 1000], values=[0, 1e-4, 5e-5, 2e-4, 5e-5, 0])",
        1000,
        "spike",
        401,
        "2e-4",
    ),
    (
        "piecewise(boundaries=[0, 50, 500, 501, 1000], values=[0, 2e-4, 2e-4, 4e-6, 0])",
        1000,
        "cliff",
        501,
        "4e-6",
    ),
    ("warmup_constant(peak=2e-4, warmup=50)", 1000, "flat", 50, "2e-4"),
    ("multistep(init=2e-4, milestones=[300, 600], factor=0.1)", 1000, "staircase", 300, "2 steps"),
    ("warmup_linear(peak=2e-4, steps=4000, warmup=2000)", 1000, "never_peaks", 999, "50%"),
    ("warmup_linear(peak=2e-4, steps=2000, warmup=0)", 1000, "never_ends", 999, "50%"),
    ("exponential(init=2e-4, factor=0.99)", 1000, "too_steep", 230, "77%"),
    ("exponential(init=2e-4, factor=0.999)", 1000, "too_slow", 999, "37%"),
    ("warmup_cosine(peak=0.5, steps=1000, warmup=50)", 1000, "rate_too_high", 50, "0.5"),
    ("warmup_cosine(peak=1e-8, steps=1000, warmup=50)", 1000, "rate_too_low", 50, "1e-8"),
    ("linear(init=2e-4, steps=500)", 1000, "flat", 500, "500 updates"),
]


@pytest.mark.parametrize("spec", HEALTHY)
def test_a_healthy_schedule_has_no_findings(spec: str) -> None:
    assert found(spec) == {}


@pytest.mark.parametrize(("spec", "updates", "code", "update", "number"), FAULTS)
def test_a_fault_is_found_at_its_update(spec: str, updates: int, code: str, update: int, number: str) -> None:
    one = found(spec, updates)[code]
    assert one.update == update
    assert number in one.evidence
    assert one.why and one.severity == "warning"


@pytest.mark.parametrize("spec", [row[0] for row in FAULTS])
def test_the_fix_of_every_fault_is_a_healthy_spec(spec: str) -> None:
    schedule, facts = parse(spec), RunFacts(1000)
    for one in with_fixes(schedule_health(schedule, facts), schedule, facts):
        fixed = parse(one.fix)
        assert is_healthy(schedule_health(fixed, facts)), one
        assert fixed.extrema(1000).high <= facts.peaks[2]


def test_a_fix_keeps_the_family_where_that_suffices() -> None:
    schedule = parse("wsd(peak=2e-4, steps=1000, warmup=300, decay=0.2)")
    assert repaired(schedule, RunFacts(1000)) == parse("wsd(peak=2e-4, steps=1000, warmup=50, decay=0.2)")


@pytest.mark.parametrize("name", [*names(), *alias_names()])
def test_every_schedule_of_the_gallery_is_fixed_for_any_run(name: str) -> None:
    spec = example_spec(entry(name))
    for updates in (1, 2, 5, 49, 50, 499, 1001) if spec else ():
        for optimizer, kind in (("adamw", "lora"), ("sgd", "full"), ("lion", "")):
            facts = RunFacts(updates, optimizer, kind)
            assert is_healthy(schedule_health(repaired(parse(spec), facts), facts)), (updates, optimizer)


@pytest.mark.parametrize(("warmup", "times"), [(100, 3.24), (500, 1.59)])
def test_adam_without_bias_correction_exceeds_the_peak(warmup: int, times: float) -> None:
    steps = 10 * warmup
    one = found(f"warmup_constant(peak=1e-4, warmup={warmup})", steps, betas=(0.9, 0.999))[
        "adam_early_excess"
    ]
    # The formula of Adam's bias correction, update by update.
    factor = [
        min(t / warmup, 1) * (1 - 0.9 ** (t + 1)) / math.sqrt(1 - 0.999 ** (t + 1)) for t in range(steps)
    ]
    assert max(factor) == pytest.approx(times, abs=0.02)
    assert one.update == factor.index(max(factor))
    assert f"{max(factor):.2f} times the peak" in one.evidence


def test_a_long_warmup_hides_the_missing_bias_correction() -> None:
    codes = found("warmup_linear(peak=1e-4, steps=20000, warmup=2000)", 20_000, betas=(0.9, 0.999))
    assert codes == {}


def test_a_schedule_that_counts_iterations_is_told_from_one_that_is_too_long() -> None:
    facts = {"iters": 1000, "accumulation": 8}
    spec = "warmup_cosine(peak=2e-4, steps=1000, warmup=10)"
    one = found(spec, 125, **facts)["accumulation_mismatch"]
    last = 0.5 * (1 + math.cos(math.pi * (124 - 10) / 990))
    assert f"{last:.0%}" in one.evidence and "125 updates" in one.evidence
    assert "never_ends" in found(spec, 125)


def test_left_over_iterations_are_a_note() -> None:
    one = found("warmup_linear(peak=2e-4, steps=3, warmup=1)", 3, iters=20, accumulation=8)
    assert one["accumulation_mismatch"].severity == "note"
    assert "4 iterations left over" in one["accumulation_mismatch"].evidence


def test_fewer_iterations_than_an_update_takes_train_nothing() -> None:
    one = found("constant(peak=2e-4)", 1, iters=4, accumulation=8)["zero_updates"]
    assert one.severity == "error"
    assert schedule_health(parse("constant(peak=2e-4)"), RunFacts(0))[0].code == "zero_updates"


def test_mlx_lms_warmup_goes_to_its_first_argument() -> None:
    block = {"name": "linear_schedule", "warmup": 4, "arguments": [0.0, 1e-3, 10]}
    codes = {one.code: one for one in schedule_health(from_mlx_lm(block), RunFacts(100, block=block))}
    assert codes["warmup_target"].update == 4
    right = {"name": "cosine_decay", "warmup": 4, "arguments": [1e-3, 95]}
    assert "warmup_target" not in {
        one.code for one in schedule_health(from_mlx_lm(right), RunFacts(100, block=right))
    }


def test_the_block_that_a_fix_writes_ends_with_the_run() -> None:
    facts = RunFacts(100, fine_tune_type="lora", block={"name": "cosine_decay", "arguments": [1e-3, 1000]})
    target = target_of(from_mlx_lm(facts.block or {}), facts)
    fixed = from_mlx_lm(target.block())
    assert fixed(target.warmup) == 1e-3 and fixed(99) > 0 and fixed(100) == 0
    assert schedule_health(fixed, facts) == []


@pytest.mark.parametrize(
    ("optimizer", "kind", "peak", "code"),
    [
        ("adamw", "lora", 1e-3, None),
        ("adamw", "lora", 1e-5, "rate_too_low"),
        ("adamw", "full", 3e-5, None),
        ("adamw", "full", 1e-3, "rate_too_high"),
        ("sgd", "lora", 1e-2, None),
        ("lion", "lora", 4e-3, "rate_too_high"),
        ("lion", "dora", 1e-4, None),
    ],
)
def test_the_range_of_rates_goes_with_optimizer_and_what_is_trained(
    optimizer: str, kind: str, peak: float, code: str | None
) -> None:
    codes = found(
        f"warmup_linear(peak={peak}, steps=1000, warmup=50)", optimizer=optimizer, fine_tune_type=kind
    )
    assert list(codes) == ([code] if code else [])


def test_lora_plus_counts_towards_the_rate() -> None:
    spec = "warmup_linear(peak=1e-3, steps=1000, warmup=50)"
    assert found(spec, fine_tune_type="lora") == {}
    assert "rate_too_high" in found(spec, fine_tune_type="lora", lora_plus_ratio=16.0)


def test_stairs_and_no_warmup_are_usual_with_sgd() -> None:
    codes = found("multistep(init=0.1, milestones=[300, 600, 900], factor=0.1)", optimizer="sgd")
    assert codes["staircase"].severity == codes["no_warmup"].severity == "note"


def test_restarts_by_design_are_notes() -> None:
    assert found("cosine_restarts(peak=2e-4, steps=1000, cycles=4, warmup=50)")["spike"].severity == "note"


@pytest.mark.parametrize("updates", [2, 3, 4, 5, 9, 10, 20, 49, 50])
def test_short_runs_of_the_default_shape_are_healthy(updates: int) -> None:
    warmup = min(max(updates // 10, 1), updates - 1)
    assert is_healthy(
        list(found(f"warmup_linear(peak=2e-4, steps={updates}, warmup={warmup})", updates).values())
    )


def test_an_end_at_rate_0_is_told_from_a_steep_decay() -> None:
    assert list(found("exponential(init=2e-4, factor=0.98)")) == ["no_warmup", "too_steep"]
    assert list(found("linear(init=2e-4, steps=300)")) == ["no_warmup", "flat"]
