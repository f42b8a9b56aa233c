"""Learning-rate schedules for MLX: a superset of the five in ``mlx.optimizers``. See README.md in this folder.

Public names are imported on first use. `catalog` lists them, and ``__init__.pyi`` tells type checkers.
"""

from __future__ import annotations

import importlib
from typing import Any

from mlxsched.schedules.catalog import home_of, public_names


def __getattr__(name: str) -> Any:
    module = home_of(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *public_names()})
