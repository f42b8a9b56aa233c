"""Pieces for other programs: ``mlxsched.integrations.mlx_lm`` is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "mlx_lm":
        return importlib.import_module(f"{__name__}.mlx_lm")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
