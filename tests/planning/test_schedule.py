"""The resolver: which schedule a run gets, and what it says of settings that don't do what they seem to."""

from __future__ import annotations

import math

import pytest

from mlxsched.config import list_presets, load_config
from mlxsched.errors import ConfigError
from mlxsched.planning.schedule import highest_rate, resolve_schedule
from mlxsched.schedules import warmup_cosine, warmup_linear

OWN = "cosine(1e-3, 500)"


def resolved(updates=500, preset=None, given=None, **flags):
    loaded = load_config(preset=preset, flags=flags)
    return resolve_schedule(loaded.config, loaded.origins, updates, given)


def codes(**settings):
    return [finding.code for finding in resolved(**settings).findings]


def told(**flags):
    return [str(finding) for finding in resolved(**flags).findings]


def test_a_schedule_with_a_peak_of_its_own_ignores_the_flags_and_says_so():
    end = f"has no effect: the schedule '{OWN}' has its own, or none"
    assert told(schedule=OWN, learning_rate=1e-4, warmup=10) == [
        f"learning_rate (--learning-rate) {end}",
        f"warmup (--warmup) {end}",
    ]


def test_so_does_one_without_an_end():
    # The end above the peak is no reason to warn: the schedule never reaches it.
    assert codes(schedule="constant", end_lr=1e-3) == ["without_effect"]


@pytest.mark.parametrize(
    "flags",
    [
        {"schedule": OWN, "end_lr": 0.0},
        {"schedule": "wsd", "learning_rate": 1e-4, "warmup": 10, "end_lr": 1e-6},
        {"schedule": "plateau(patience=1)", "learning_rate": 1e-4, "warmup": 10},
        {"schedule": "one_cycle", "learning_rate": 1e-4, "warmup": 0.1},
        {"schedule": {"name": "cosine", "end": 1e-6}, "learning_rate": 1e-4, "warmup": 0},
        {"lr_schedule": {"name": "cosine_decay", "arguments": [1e-5, 500]}},
    ],
)
def test_nothing_is_said_of_settings_that_count(flags):
    assert told(**flags) == []


def test_an_end_above_the_peak_is_warned_of():
    assert codes(learning_rate=1e-4, end_lr=1e-3) == ["end_above_peak"]
    assert codes(learning_rate=1e-4, end_lr=1e-4) == []


@pytest.mark.parametrize(("updates", "warmup"), [(4000, 100), (400, 40), (100, 10), (12, 1)])
def test_a_preset_s_warmup_is_cut_to_a_tenth_of_the_run(updates, warmup):
    made = resolved(updates, preset="lora")
    assert (made.warmup, made.schedule.warmup) == (warmup, warmup)
    assert ("warmup_shortened" in [finding.code for finding in made.findings]) == (warmup < 100)


@pytest.mark.parametrize(("updates", "warmup"), [(1, 0), (2, 1), (3, 1)])
def test_the_note_on_a_shortened_warmup_does_not_call_half_of_a_run_a_tenth(updates, warmup):
    made = resolved(updates, preset="lora")
    (note,) = [finding.evidence for finding in made.findings if finding.code == "warmup_shortened"]
    assert made.warmup == warmup and "tenth" not in note
    assert f"since the run has {updates} update" in note


def test_a_warmup_of_the_user_s_own_must_fit():
    assert resolved(100, warmup=99).warmup == 99
    with pytest.raises(ConfigError, match="`warmup` must be below `steps`; got 100 and 100. Lower --warmup"):
        resolved(100, warmup=100)


def test_a_warmup_that_does_not_fit_names_the_length_that_was_given():
    with pytest.raises(ConfigError, match=r"Lower --warmup or raise --iters\."):
        resolved(100, warmup=100, iters=100)
    with pytest.raises(ConfigError, match=r"Lower --warmup or raise --epochs\."):
        resolved(100, warmup=100)


@pytest.mark.parametrize(("updates", "noted"), [(40, False), (15, True)])
def test_a_preset_notes_its_wasted_first_update_only_in_a_very_short_run(updates, noted):
    found = [finding.code for finding in resolved(updates, preset="debug").findings]
    assert ("first_update_wasted" in found) == noted
    assert "first_update_wasted" in [finding.code for finding in resolved(updates, warmup=4).findings]


def test_a_ratio_of_warmup_is_left_alone():
    assert resolved(100, preset="one-cycle").warmup == 30


def test_a_family_with_its_own_warmup_keeps_it_by_default():
    assert resolved(100, schedule="one_cycle").warmup == 30
    assert resolved(100, schedule="one_cycle", warmup=10).warmup == 10


def test_a_given_schedule_takes_precedence():
    schedule = warmup_cosine(1e-2, 500, 7)
    made = resolved(given=schedule)
    assert (made.schedule, made.warmup, made.peak) == (schedule, 7, 1e-2)


def test_the_peak_is_exact():
    # A sample of 200 points misses the end of this warmup by 0.5%.
    assert resolved(3000, warmup=137, learning_rate=1e-3).peak == 1e-3
    assert resolved(3000, given=lambda step: 1.0 if step == 137 else 0.5).peak == 1.0
    assert resolved(50, given=warmup_linear(1e-3, 500, 100)).peak == warmup_linear(1e-3, 500, 100)(49)


@pytest.mark.parametrize("updates", [1, 2, 3, 200])
def test_the_peak_is_that_of_the_updates_which_are_made(updates):
    schedule = warmup_cosine(1e-3, 200, 100)
    assert math.isclose(highest_rate(schedule, updates), max(schedule(step) for step in range(updates)))


def test_a_schedule_that_cannot_finish_is_warned_of():
    (finding,) = resolved(80, given=warmup_cosine(1e-3, 1000)).findings
    assert finding.code == "never_ends"
    assert "1,000 updates and the run has 80" in finding.evidence and "98%" in finding.evidence


def test_a_run_that_ends_in_its_warmup_is_not_said_to_end_at_its_highest_rate():
    (finding, *_) = [
        f for f in resolved(3, given=warmup_cosine(1e-3, 1000, 100)).findings if f.code == "never_ends"
    ]
    assert "ends during the warmup, at 2e-05" in finding.evidence and "highest" not in finding.evidence


def test_a_schedule_that_ends_long_before_the_run_is_warned_of():
    (finding,) = resolved(40, given=warmup_linear(1e-3, 5)).findings
    assert finding.code == "ends_early" and "after 5 of 40 updates" in finding.evidence


def test_a_schedule_that_never_leaves_zero_is_warned_of():
    assert [finding.code for finding in resolved(40, given=lambda step: 0.0).findings] == ["zero_rate"]


def test_a_schedule_made_for_the_run_is_not_warned_of():
    assert resolved(40, given=warmup_linear(1e-3, 40)).findings == ()


@pytest.mark.parametrize("updates", [1, 2, 3])
@pytest.mark.parametrize("preset", [preset.name for preset in list_presets()])
def test_every_preset_survives_a_short_run(preset, updates):
    made = resolved(updates, preset=preset)
    assert made.warmup < updates
    assert made.peak > 0 and made.schedule(updates - 1) > 0


def test_a_first_update_at_rate_0_is_pointed_out_in_a_short_run():
    made = resolved(50, warmup=4, learning_rate=1e-3)
    (finding,) = made.findings
    assert (finding.code, finding.severity) == ("first_update_wasted", "note")
    assert "2% of the run" in finding.evidence and finding.fix.endswith("--warmup-init 0.0002")
    assert codes(updates=50, warmup=4, learning_rate=1e-3, warmup_init=2e-4) == []
    assert codes(updates=100, warmup=4) == []


def test_the_fix_for_mlx_lms_block_is_in_the_block():
    block = {"name": "cosine_decay", "warmup": 4, "arguments": [1e-4, 45, 1e-6]}
    (finding,) = resolved(50, lr_schedule=block).findings
    assert finding.fix.endswith("warmup_init in lr_schedule: 2e-05")
    assert resolved(50, lr_schedule={**block, "warmup_init": 1e-7}).findings == ()


@pytest.mark.parametrize(
    "name", ["linear", "cosine", "constant", "wsd", "one_cycle", "rex", "plateau", "knee"]
)
def test_warmup_init_changes_the_warmup_and_nothing_after_it(name):
    plain = resolved(100, schedule=name, warmup=10, learning_rate=1e-3).schedule
    lifted = resolved(100, schedule=name, warmup=10, learning_rate=1e-3, warmup_init=1e-4).schedule
    assert [lifted(step) for step in range(10, 130)] == [plain(step) for step in range(10, 130)]
    assert [lifted(step) for step in range(10)] == pytest.approx([1e-4 + 9e-5 * step for step in range(10)])


def test_warmup_init_without_a_warmup_has_no_effect_and_that_is_said():
    assert codes(warmup=0, warmup_init=1e-4) == ["without_effect"]


def test_mlx_lms_block_gives_mlx_lms_values_over_the_updates_of_the_run(tmp_path):
    import mlx.core as mx
    from mlx_lm.tuner.utils import build_schedule

    from mlxsched.planning.length import plan_length

    block = {"name": "cosine_decay", "warmup": 4, "warmup_init": 1e-7, "arguments": [1e-4, 7, 1e-6]}
    path = tmp_path / "lora.yaml"
    path.write_text(
        "iters: 48\nbatch_size: 2\ngrad_accumulation_steps: 4\nlearning_rate: 1e-5\n"
        "lr_schedule: {name: cosine_decay, warmup: 4, warmup_init: 1e-7, arguments: [1e-4, 7, 1e-6]}\n"
    )
    loaded = load_config(file=path)
    length = plan_length(loaded.config, 40)
    made, theirs = resolve_schedule(loaded.config, loaded.origins, length.updates), build_schedule(block)
    assert length.updates == 12
    for update in range(12):
        assert made.schedule(update) == pytest.approx(theirs(mx.array(update)).item(), abs=1e-10)
    (finding,) = [finding for finding in made.findings if finding.code == "without_effect"]
    assert "learning_rate 1e-05" in finding.evidence and "lora.yaml:4" in finding.evidence


def test_until_plateau_holds_the_rate():
    loaded = load_config(flags={"until_plateau": True})
    resolved = resolve_schedule(loaded.config, loaded.origins, 1000)
    assert resolved.to_dict()["name"] == "wsd" and "constant_until_plateau" in [
        f.code for f in resolved.findings
    ]
    constant = load_config(flags={"until_plateau": True, "schedule": "constant"})
    assert resolve_schedule(constant.config, constant.origins, 1000).to_dict()["name"] == "warmup_constant"
    falling = load_config(flags={"until_plateau": True, "schedule": "cosine"})
    with pytest.raises(ConfigError, match="until_plateau needs"):
        resolve_schedule(falling.config, falling.origins, 1000)
