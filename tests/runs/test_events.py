"""The schema of metrics.jsonl: what is written is what is read, and nothing else is accepted."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxsched.runs.events import (
    CheckpointSaved,
    Evaluated,
    Measured,
    Notice,
    RunFinished,
    RunStarted,
    Tick,
    UpdateMade,
    event_from_record,
)
from mlxsched.runs.metrics import format_record

UPDATES = st.integers(0, 10**12)
COUNTS = st.integers(0, 2**40)
NUMBERS = st.floats(allow_infinity=False)
EVENTS = st.one_of(
    st.builds(
        UpdateMade,
        update=UPDATES,
        tokens=COUNTS,
        targets=COUNTS,
        **dict.fromkeys(
            ("loss", "lr", "grad_norm", "tokens_per_second", "peak_memory_gb", "seconds"), NUMBERS
        ),
        smoothed=NUMBERS,
        applied=st.booleans(),
    ),
    st.builds(Evaluated, UPDATES, NUMBERS, NUMBERS, st.booleans(), NUMBERS),
    st.builds(Notice, UPDATES, st.text(), st.text()),
)


@given(EVENTS)
def test_an_event_survives_the_file(event):
    read = event_from_record(json.loads(format_record(event.record())))
    assert repr(read) == repr(event)  # by text, since NaN is not equal to itself


def test_the_keys_are_those_that_scripts_rely_on():
    train = UpdateMade(0, 1.0, 1e-4, 0.5, 10, 9, 100.0, 0.1, 0.1, 1.0).record()
    assert {"kind", "update", "loss", "lr", "grad_norm", "tokens", "targets"} < set(train)
    assert {"tokens_per_second", "peak_memory_gb", "seconds"} < set(train)
    assert {"kind", "update", "loss", "perplexity"} < set(Evaluated(0, 1.0, math.e, True, 0.1).record())
    assert Notice(3, "spike", "x").record() == {"kind": "event", "update": 3, "code": "spike", "message": "x"}


@pytest.mark.parametrize(
    "event",
    [
        RunStarted(0, 10),
        Measured(0, 2.5),
        CheckpointSaved(5, "runs/a/checkpoints/000005"),
        RunFinished(10, "finished"),
        Tick(0, "x", 1, 2),
    ],
)
def test_what_is_only_shown_has_no_record(event):
    assert event.record() is None


def test_a_partial_record_has_the_given_keys_only_and_knows_the_names():
    assert UpdateMade.partial_record(update=1, loss=2.0, lr=0.1) == {
        "kind": "train",
        "update": 1,
        "loss": 2.0,
        "lr": 0.1,
    }
    with pytest.raises(TypeError):
        UpdateMade.partial_record(update=1, loss=2.0, lr=0.1, norm=3.0)
    with pytest.raises(TypeError):
        UpdateMade.partial_record(update=1, loss=2.0)


def test_missing_and_null_values_and_unknown_keys():
    event = event_from_record({"kind": "train", "update": 2, "loss": None, "lr": 1, "later": {"x": 1}})
    assert math.isnan(event.loss) and event.lr == 1.0 and type(event.lr) is float
    assert math.isnan(event.grad_norm) and event.tokens == 0 and event.applied


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "other"}, "'kind' must be one of train, eval, event; got 'other'"),
        ({"update": True}, "'update' must be a whole number"),
        ({"update": -1}, "'update' must be a whole number"),
        ({"update": 10**5000}, "got a number with too many digits"),
        ({"loss": "1"}, "'loss' must be a number; got '1'"),
        ({"loss": 10**400}, "'loss' is too large"),
        ({"lr": [1]}, "'lr' must be a number"),
        ({"tokens": 1.5}, "'tokens' must be a whole number; got 1.5"),
        ({"tokens": 10**400}, "'tokens' is too large"),
        ({"tokens": True}, "'tokens' must be a whole number"),
        ({"applied": 1}, "'applied' must be a true or false; got 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(changes, message):
    with pytest.raises(ValueError) as caught:
        event_from_record({"kind": "train", "update": 0, "loss": 1.0, "lr": 0.1} | changes)
    assert message in str(caught.value)


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match="'lr' is missing"):
        event_from_record({"kind": "train", "update": 0, "loss": 1.0})
    with pytest.raises(ValueError, match="'code' is missing"):
        event_from_record({"kind": "event", "update": 0})
