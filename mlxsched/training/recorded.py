"""What run.json says of an earlier run: its config, and what has changed since, so that it cannot be continued exactly."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mlxsched.config.schema import RunConfig
from mlxsched.errors import UsageError
from mlxsched.model.load import model_fingerprint
from mlxsched.platform.machine import versions
from mlxsched.runs.directory import RunDirectory
from mlxsched.runs.store import stored_config
from mlxsched.training.gpu_timeout import is_watched
from mlxsched.training.layout import LAYOUT, LAYOUT_NAME
from mlxsched.training.memory_plan import default_micro_batch_tokens
from mlxsched.training.session import Session

# What decides which rows an update holds: keys of the plan, and what to call them.
_ORDER = {"batch_size": "rows of an update", "length_window": "length_window"}


def config_of(
    run: RunDirectory,
    *,
    adapter_path: str | None = None,
    trust_remote_code: bool = False,
    need: Collection[str] = ("data", "model"),
    **given: object,
) -> RunConfig:
    """The config that `run` was started with, with `given` values in place of its own (see `stored_config`).

    Permissions to reach beyond the run's directory (another place to write to, a model's code) are never read from a
    file: they must be given again.
    """
    values: dict[str, Any] = stored_config(run, need=need, **given)
    if values.get("micro_batch_tokens") is None and is_watched():
        # Runs begun before this size was measured had the default; new ones always record it.
        values["micro_batch_tokens"] = default_micro_batch_tokens()
    try:
        return RunConfig(**{**values, "adapter_path": adapter_path, "trust_remote_code": trust_remote_code})
    except ValueError as error:
        raise UsageError(
            f"{run.path}/run.json holds a config that this version cannot read: {error}"
        ) from error


def identity(session: Session) -> dict[str, Any]:
    """What a resume must find unchanged."""
    return {
        "versions": {**versions(), LAYOUT_NAME: str(LAYOUT)},
        "data": {"fingerprint": session.dataset.fingerprint},
        "model": {"fingerprint": model_fingerprint(session.loaded.path)},
    }


def changes_since(run: RunDirectory, session: Session) -> list[str]:
    """What has changed since ``run`` began: versions, data, model or order. Continuing would not be exact."""
    found = []
    for kind, now in identity(session).items():
        before: Mapping[str, Any] = getattr(run.info, kind)
        found += [
            f"{'the content of the ' + kind if key == 'fingerprint' else key} "
            f"({_short(before.get(key, 'none'))} then, {_short(value)} now)"
            for key, value in now.items()
            if before.get(key) != value
        ]
    plan, now_planned = run.info.plan, session.plan.to_dict()
    return found + [
        f"{name} ({plan[key]} then, {now_planned[key]} now)"
        for key, name in _ORDER.items()
        if key in plan and plan[key] != now_planned[key]
    ]


def _short(value: object) -> str:
    return str(value)[:12]


def refuse_changes(run: RunDirectory, session: Session, *, force: bool) -> list[str]:
    """The changes that ``force`` lets pass; without it ``UsageError`` if there are any."""
    changes = changes_since(run, session)
    if changes and not force:
        listed = "\n  ".join(changes)
        raise UsageError(
            f"{run.path} cannot be resumed exactly; what changed:\n  {listed}\n"
            "Undo the changes, or resume anyway with --force."
        )
    return changes
