"""Where mlxsched caches what it can rebuild."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """``$MLXSCHED_CACHE``, else ``$XDG_CACHE_HOME/mlxsched``, else ``~/.cache/mlxsched``. It may not exist yet."""
    own = os.environ.get("MLXSCHED_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "mlxsched"
