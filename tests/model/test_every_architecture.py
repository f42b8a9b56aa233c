"""A small form of `benchmarks/architectures.py`: random models train with default flags, or are refused by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def sweep():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("architectures")


@pytest.mark.parametrize(
    ("kind", "lora", "dora", "full"),
    [
        ("gpt2", "yes", "yes", "yes"),
        ("gemma3n", "in part", "in part", "yes"),  # its AltUp reads the weights of two modules itself
        ("mixtral", "yes", "in part", "yes"),  # mlx-lm has no DoRA for experts
        ("mamba2", "yes", "yes", "yes"),
        ("deepseek_v3", "yes", "in part", "yes"),
        ("recurrent_gemma", "refused", "refused", "refused"),
    ],
)
def test_default_flags_train_or_are_refused(sweep, kind, lora, dora, full):
    """And mlx-lm's loader makes the same model of the adapter."""
    remarks = []
    found = [sweep.trained(kind, fine_tune_type, remarks) for fine_tune_type in sweep.KINDS]
    assert found == [lora, dora, full]
    assert not [text for text in remarks if "WRONG" in text]
