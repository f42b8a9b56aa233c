"""A comparison ignores the time limit of a preset, and refuses one that the user gave."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.experiments.refusals import refuse_settings, without_preset_limit


def test_the_time_limit_of_a_preset_is_ignored_with_a_note() -> None:
    loaded, notes = load_config(preset="debug"), list[str]()
    config = without_preset_limit(loaded.config, loaded.origins, notes.append)
    assert config.max_time is None and config.iters == loaded.config.iters
    (note,) = notes
    assert note.startswith("Note: the time limit (max_time) of preset debug is ignored")


def test_a_time_limit_that_the_user_gave_is_refused() -> None:
    loaded, notes = load_config(preset="debug", flags={"max_time": "5m"}), list[str]()
    config = without_preset_limit(loaded.config, loaded.origins, notes.append)
    assert config is loaded.config and not notes
    with pytest.raises(UsageError, match="leave --max-time out"):
        refuse_settings(config, loaded.origins, ("max_time",), "a comparison has one budget")
