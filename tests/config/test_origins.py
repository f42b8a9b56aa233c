"""Origins tell what the user chose from what was chosen for them."""

from __future__ import annotations

import pytest

from mlxsched.config.origins import from_file, from_flag, is_inherited


@pytest.mark.parametrize(
    ("origin", "kind"),
    [
        ("default", "inherited"),
        ("preset lora", "inherited"),
        ("memory plan", "inherited"),
        ("mlx-lm's default", "inherited"),
        ("mlx-lm's default (100 iterations)", "inherited"),
        ("run.yaml:3", "file"),
        ("a (b)/run.yaml:3 (alpha 8 / rank 8)", "file"),
        ("--warmup", "flag"),
        ("--no-fast", "flag"),
        ("--learning-rate (replaces run.yaml:3)", "flag"),
    ],
)
def test_an_origin_is_of_one_kind(origin, kind):
    assert {"inherited": is_inherited, "file": from_file, "flag": from_flag}[kind](origin)
    assert [is_inherited(origin), from_file(origin), from_flag(origin)].count(True) == 1
