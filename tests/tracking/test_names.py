"""``--report-to``: known, installed, and refused before anything is loaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mlxsched.errors import UsageError
from mlxsched.tracking import TRACKERS, check_names


def test_lists_are_split_and_duplicates_dropped():
    assert check_names("tensorboard, WANDB,tensorboard,,none") == ["tensorboard", "wandb"]


def test_an_unknown_name_gets_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean 'wandb'"):
        check_names("tensorboard,wandbb")


def test_a_tracker_that_is_not_installed_is_refused_with_the_command(monkeypatch):
    monkeypatch.setitem(TRACKERS, "wandb", "no_such_module_here")
    with pytest.raises(UsageError, match="pip install wandb"):
        check_names("wandb")


def test_the_check_imports_no_tracker():
    code = (
        "import sys; from mlxsched.tracking import check_names; check_names('tensorboard,trackio,wandb')\n"
        "print([m for m in ('tensorboardX', 'trackio', 'wandb', 'mlx.core', 'mlx_lm') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
