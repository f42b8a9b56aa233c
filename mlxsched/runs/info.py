"""``run.json``: what a run is, and how it stands, as typed values read with suspicion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from mlxsched.errors import UserError
from mlxsched.runs.json_file import read_object

STATUSES = ("running", "finished", "stopped", "failed")
PERMISSIONS = (
    "trust_remote_code",
    "adapter_path",
)  # to run code, to write elsewhere: the command line gives them


@dataclass(frozen=True)
class RunInfo:
    """The contents of ``run.json``.

    ``config`` and ``origins`` (the origin of each value) are those of the first start; ``plan`` and ``versions``
    too. ``data`` and ``model`` hold what a resume must find unchanged (fingerprints). ``update`` is the number of
    updates made when the file was written, ``best`` the evaluation of the best adapter, ``results`` what was
    measured before and after the training, ``short_cuts`` what the last start did instead of the plain path, for
    training and for validation rows, ``message`` why a run stopped or failed. Times are UTC, ISO 8601.
    """

    status: str = "running"
    config: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[str, object] = field(default_factory=dict)
    plan: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    best: Mapping[str, object] | None = None
    results: Mapping[str, object] = field(default_factory=dict)
    short_cuts: Mapping[str, object] = field(default_factory=dict)
    update: int = 0
    message: str = ""
    created: str = ""
    updated: str = ""


def read_info(path: Path) -> RunInfo:
    """The run information in the file `path`.

    Unknown keys are ignored, a permission in ``config`` (`PERMISSIONS`) is left out. Raises `UserError`
    with the file, the key and the fix for a value of the wrong kind.
    """
    raw = read_object(path)
    known = {key: raw[key] for key in _KINDS if key in raw}
    for key, value in known.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise UserError(
                f"{path}: {key!r} must be {_NAMES[_KINDS[key]]}; got {type(value).__name__}. {_FIX}"
            )
    info = RunInfo(**known)  # type: ignore[arg-type]  # the loop above is the proof
    if info.status not in STATUSES or info.update < 0:
        raise UserError(
            f"{path}: {info.status!r} after {info.update} updates is not a state of a run. {_FIX}"
        )
    return dataclasses.replace(info, config=without_permissions(info.config))


def to_json(info: RunInfo) -> dict[str, object]:
    """The form in which `info` is written: dated, and without permissions."""
    record: dict[str, object] = {"format": 1}
    record.update({item.name: getattr(info, item.name) for item in fields(info)})
    record["config"] = without_permissions(info.config)
    record["updated"] = now()
    record["created"] = info.created or record["updated"]
    return record


def without_permissions(config: Mapping[str, object]) -> dict[str, object]:
    """`config` without what a file can't allow."""
    return {key: value for key, value in config.items() if key not in PERMISSIONS}


def now() -> str:
    """The time, as it is written in ``run.json``."""
    return datetime.now(UTC).isoformat(timespec="seconds")


_FIX = "The file is damaged or not from mlxsched."
_KINDS: dict[str, type | tuple[type, ...]] = {
    "status": str,
    "config": dict,
    "origins": dict,
    "plan": dict,
    "versions": dict,
    "data": dict,
    "model": dict,
    "best": (dict, type(None)),
    "results": dict,
    "short_cuts": dict,
    "update": int,
    "message": str,
    "created": str,
    "updated": str,
}
_NAMES: dict[type | tuple[type, ...], str] = {
    str: "a text",
    int: "a whole number",
    dict: "an object",
    (dict, type(None)): "an object or null",
}
