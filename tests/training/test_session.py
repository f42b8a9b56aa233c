"""What a plan says of settings that don't do what they seem to."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.training.session import _plan_schedule

OWN = "cosine(1e-3, 500)"


def told(**flags) -> tuple[list[str], list[str]]:
    """Notes and warnings about the schedule of a run of 500 updates."""
    loaded = load_config(flags=flags)
    _, notes, warnings = _plan_schedule(loaded.config, loaded.origins, 500, None)
    return notes, warnings


def test_a_schedule_with_a_peak_of_its_own_beats_the_flags_aloud():
    notes, _ = told(schedule=OWN, learning_rate=1e-4, warmup=10)
    end = f"has no effect: the schedule '{OWN}' has its own, or none"
    assert notes == [f"learning_rate (--learning-rate) {end}", f"warmup (--warmup) {end}"]


def test_so_does_one_without_an_end():
    notes, warnings = told(schedule="constant", end_lr=1e-3)
    assert notes == ["end_lr (--end-lr) has no effect: the schedule 'constant' has its own, or none"]
    assert warnings == []  # above the peak as it is, it never comes


@pytest.mark.parametrize(
    "flags",
    [
        {"schedule": OWN, "end_lr": 0.0},
        {"schedule": "wsd", "learning_rate": 1e-4, "warmup": 10, "end_lr": 1e-6},
        {"schedule": "plateau(patience=1)", "learning_rate": 1e-4, "warmup": 10},
        {"schedule": "one_cycle", "learning_rate": 1e-4, "warmup": 0.1},
        {"schedule": {"name": "cosine", "end": 1e-6}, "learning_rate": 1e-4, "warmup": 0},
    ],
)
def test_settings_that_count_are_not_told_of(flags):
    assert told(**flags) == ([], [])


def test_an_end_above_the_peak_is_warned_of():
    assert told(learning_rate=1e-4, end_lr=1e-3)[1] == [
        "end_lr 0.001 is above the peak of 0.0001: the rate rises up to the end of the run. Lower --end-lr"
    ]
    assert told(learning_rate=1e-4, end_lr=1e-4)[1] == []


def test_mlx_lms_block_is_left_alone():
    block = {"name": "cosine_decay", "arguments": [1e-5, 500]}
    assert told(lr_schedule=block) == ([], [])
