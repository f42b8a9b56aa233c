"""Files that a command writes for its user."""

from __future__ import annotations

from pathlib import Path


def write_new(path: Path, text: str, *, force: bool) -> None:
    """Write ``text`` to ``path``, which must not exist unless ``force`` is given."""
    from mlxsched.errors import UsageError
    from mlxsched.runs.atomic import write_text

    if path.exists() and not force:
        raise UsageError(f"{path} exists. Choose another name, or add --force to overwrite it.")
    if not path.parent.is_dir():
        raise UsageError(f"No such directory: {path.parent}. Create it first.")
    write_text(path, text)
