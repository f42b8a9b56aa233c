"""What is said of every registered schedule."""

from __future__ import annotations

import math

import pytest

from mlxsched.errors import ScheduleError
from mlxsched.render.curves import small_picture
from mlxsched.render.describe import arguments, example, find_entry, heading, other_names
from mlxsched.schedules.registry import alias_names, entry, names

WITHOUT_EXAMPLE = ("optax.sgdr_schedule",)  # its argument is a list of dictionaries, which a spec cannot hold


@pytest.mark.parametrize("name", [*names(), *alias_names()])
def test_every_schedule_can_be_shown(name: str) -> None:
    known = entry(name)
    shown = example(known)
    if name in WITHOUT_EXAMPLE:
        assert shown is None
        return
    assert shown is not None and shown.steps > 0
    assert all(math.isfinite(value) and value >= 0 for value in shown.values(16))
    assert "update" in small_picture(shown.schedule, steps=shown.steps)
    assert heading(known)


@pytest.mark.parametrize("name", names())
def test_every_argument_is_explained(name: str) -> None:
    unexplained = [one.name for one in arguments(entry(name)) if not one.text]
    assert unexplained == []


def test_arguments_have_their_defaults() -> None:
    told = {one.name: one.default for one in arguments(entry("wsd"))}
    assert (told["peak"], told["warmup"], told["decay"], told["shape"]) == ("", "0", "0.2", "'1-sqrt'")


def test_values_go_from_the_first_update_to_the_last() -> None:
    shown = example(entry("warmup_linear"))
    assert shown is not None
    values = shown.values(11)
    assert (values[0], values[1], values[-1], len(values)) == (0.0, 2e-4, 0.0, 11)


def test_short_names_lead_to_what_they_stand_for() -> None:
    assert "linear" in other_names("warmup_linear")
    assert find_entry("warmup_cosine").name == "warmup_cosine"


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(ScheduleError, match="Did you mean 'one_cycle'"):
        find_entry("onecycle")
