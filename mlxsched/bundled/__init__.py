"""The model and the data set that come with the package, so that a first run needs no network.

Both are made by `scripts/` in the repository; docs/bundled.md says how.

>>> model_path("tiny").name, data_path("excel").name
('tiny', 'excel')
"""

from __future__ import annotations

from pathlib import Path

from mlxsched.errors import UsageError

MODELS = ("tiny",)
DATA = ("excel",)


def model_path(name: str) -> Path:
    """The directory, in mlx-lm's format, of the bundled model ``name``; UsageError if there is none."""
    return _path(name, MODELS, "model")


def data_path(name: str) -> Path:
    """The directory of train, valid and test.jsonl of the bundled data ``name``; UsageError if there is none."""
    return _path(name, DATA, "data set")


def _path(name: str, names: tuple[str, ...], kind: str) -> Path:
    if name not in names:
        raise UsageError(f"no bundled {kind} '{name}'. Available: {', '.join(names)}.")
    return Path(__file__).parent / name
