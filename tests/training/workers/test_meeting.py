"""What workers compare before they train together."""

from __future__ import annotations

import pytest

from mlxsched.config import load_config
from mlxsched.errors import UsageError
from mlxsched.training.layout import LAYOUT_NAME
from mlxsched.training.session import prepare
from mlxsched.training.workers import meeting
from mlxsched.training.workers.world import World


def test_a_worker_with_another_layout_of_micro_batches_does_not_join() -> None:
    loaded = load_config(flags={"iters": 2, "val_batches": 0})
    session = prepare(loaded.config, loaded.origins)
    facts = meeting._facts(session)
    assert meeting.join(session, World(), {"do": "start", "facts": facts}).plan is session.plan
    other = {**facts, LAYOUT_NAME: 1}
    with pytest.raises(
        UsageError, match=r"differs from worker 0 in: layout of micro-batches \(1 there, \d+ here\)"
    ):
        meeting.join(session, World(), {"do": "start", "facts": other})
