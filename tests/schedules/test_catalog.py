"""The one list of names: every name can be imported, and importing loads little."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mlxsched as ms
from mlxsched.schedules.catalog import public_names


def test_public_names_can_all_be_imported():
    for name in public_names():
        assert getattr(ms, name) is getattr(ms.schedules, name)
        assert name in dir(ms) and name in ms.__all__
    with pytest.raises(AttributeError, match="nosuch"):
        _ = ms.nosuch


def test_the_import_is_light():
    code = "import sys, mlxsched; print(*[m for m in sys.modules if '.' not in m])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"numpy", "pydantic", "transformers", "mlx_lm", "matplotlib", "click", "yaml"} & set(loaded)
