"""Learning-rate schedules for MLX, and the LoRA fine-tuning app that makes them finish.

``import mlxsched as ms`` loads little: public names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mlxsched.platform.blas import preload as _preload

_preload()  # before anything imports mlx

from mlxsched.schedules.catalog import public_names as _schedule_names  # noqa: E402

if TYPE_CHECKING:
    from mlxsched import analysis as analysis
    from mlxsched import integrations as integrations
    from mlxsched import schedules as schedules
    from mlxsched.errors import ConfigError as ConfigError
    from mlxsched.errors import DataError as DataError
    from mlxsched.errors import DivergedError as DivergedError
    from mlxsched.errors import MlxschedError as MlxschedError
    from mlxsched.errors import RunError as RunError
    from mlxsched.errors import ScheduleError as ScheduleError
    from mlxsched.errors import UserError as UserError
    from mlxsched.render.notebook import read_run as read_run
    from mlxsched.schedules import *  # noqa: F403

__version__ = "0.1.0"

_ERRORS = (
    "MlxschedError",
    "UserError",
    "ScheduleError",
    "ConfigError",
    "DataError",
    "RunError",
    "DivergedError",
)

_PACKAGES = ("analysis", "integrations", "schedules")

__all__ = ["__version__", "read_run", *_PACKAGES, *_ERRORS, *_schedule_names()]


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        from mlxsched import errors as home
    elif name == "read_run":
        from mlxsched.render import notebook as home  # type: ignore[no-redef]
    elif name in _PACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    elif name in __all__:
        from mlxsched import schedules as home  # type: ignore[no-redef]
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
