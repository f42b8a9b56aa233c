"""``run.json``: what a run is and its status, as typed values that are checked when they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path

from mlxsched.errors import UserError
from mlxsched.runs.json_file import read_object
from mlxsched.runs.requests import Request

STATUSES = ("running", "finished", "stopped", "failed")
PERMISSIONS = ("trust_remote_code", "adapter_path")
"""Permission to run a model's code and to write elsewhere: only the command line gives them, never a file."""


@dataclass(frozen=True)
class RunInfo:
    """The contents of ``run.json``.

    Attributes:
        status: one of `STATUSES`.
        config: the run's config at its first start.
        origins: where each value of `config` came from.
        plan: the plan at the first start.
        versions: of the packages that decide what is computed.
        data: the fingerprint of the data, which must be unchanged on resume; that of the validation rows (``valid``),
            and whether the seed decides which rows these are (``split_by_seed``).
        model: the fingerprint of the model, likewise.
        paths: where the local files of `config` were (see `mlxsched.runs.store.local_paths`).
        best: update and loss of the best evaluation.
        results: what was measured before and after the training.
        short_cuts: the optimizations that the last start used, for training and for validation rows.
        tuning: which optimizations were timed at the first start and which were chosen; a resume takes the same.
        update: how many updates had been made when the file was written.
        message: why the run stopped or failed.
        requests: what was asked of the run since it began, in order; the last one holds.
        length: updates of the run where these are no longer those of the plan: it was extended, or fitted into a time.
        created: time of the first start; times are UTC, ISO 8601.
        updated: when the file was written.
    """

    status: str = "running"
    config: Mapping[str, object] = field(default_factory=dict)
    origins: Mapping[str, object] = field(default_factory=dict)
    plan: Mapping[str, object] = field(default_factory=dict)
    versions: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, object] = field(default_factory=dict)
    model: Mapping[str, object] = field(default_factory=dict)
    paths: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    best: Mapping[str, object] | None = None
    results: Mapping[str, object] = field(default_factory=dict)
    short_cuts: Mapping[str, object] = field(default_factory=dict)
    tuning: Mapping[str, object] = field(default_factory=dict)
    update: int = 0
    message: str = ""
    requests: tuple[Request, ...] = ()
    length: int | None = None
    created: str = ""
    updated: str = ""

    @property
    def updates(self) -> int | None:
        """The length of the run as it was last revised; None if it is the planned one."""
        asked = self.requests[-1].updates if self.requests else None
        return asked if self.length is None else self.length


def read_info(path: Path) -> RunInfo:
    """The run information in the file `path`.

    Unknown keys are ignored, and so is a permission in ``config`` (`PERMISSIONS`). Raises `UserError` with the file, the
    key and the fix for a value of the wrong type.
    """
    raw = read_object(path)
    known = {key: raw[key] for key in _KINDS if key in raw}
    for key, value in known.items():
        if not isinstance(value, _KINDS[key]) or isinstance(value, bool):
            raise UserError(
                f"{path}: {key!r} must be {_NAMES[_KINDS[key]]}; got {type(value).__name__}. {_FIX}"
            )
    info = RunInfo(**known)  # type: ignore[arg-type]  # the loop above checked the types
    if info.status not in STATUSES or info.update < 0:
        raise UserError(
            f"{path}: {info.status!r} after {info.update} updates is not a state of a run. {_FIX}"
        )
    if not all(_is_place(place) for place in info.paths.values()):
        raise UserError(f"{path}: 'paths' must hold objects with 'path' and 'from_run'. {_FIX}")
    try:
        requests = tuple(Request.from_dict(entry) for entry in info.requests)
    except ValueError as error:
        raise UserError(f"{path}: 'requests' can't be read: {error}. {_FIX}") from error
    return dataclasses.replace(info, config=without_permissions(info.config), requests=requests)


def _is_place(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("path", "from_run"))


def to_json(info: RunInfo) -> dict[str, object]:
    """`info` as it is written: with the time, and without permissions."""
    record: dict[str, object] = {"format": 1}
    record.update({item.name: getattr(info, item.name) for item in fields(info)})
    record["requests"] = [request.to_dict() for request in info.requests]
    record["config"] = without_permissions(info.config)
    record["updated"] = now()
    record["created"] = info.created or record["updated"]
    return record


def without_permissions(config: Mapping[str, object]) -> dict[str, object]:
    """`config` without the values that a file must not give."""
    return {key: value for key, value in config.items() if key not in PERMISSIONS}


def measures(results: Mapping[str, object], when: str) -> dict[str, float]:
    """The numbers in `results` that were measured ``before`` or ``after`` a training.

    Whatever else a damaged file holds is left out, such as an integer that is too large for a float.

    >>> measures({"after": {"loss": 0.5, "asked": 20, "note": "x", "perplexity": 10**400}}, "after")
    {'loss': 0.5, 'asked': 20}
    """
    found = results.get(when)
    items = found.items() if isinstance(found, Mapping) else ()
    return {
        key: value
        for key, value in items
        if isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST_COUNT)
    }


def now() -> str:
    """The current time, as it is written in ``run.json``."""
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
    "paths": dict,
    "best": (dict, type(None)),
    "results": dict,
    "short_cuts": dict,
    "tuning": dict,
    "update": int,
    "message": str,
    "requests": list,
    "length": (int, type(None)),
    "created": str,
    "updated": str,
}
_LARGEST_COUNT = 2**53  # beyond that a JSON number is not a count
_NAMES: dict[type | tuple[type, ...], str] = {
    str: "a text",
    int: "a whole number",
    dict: "an object",
    list: "a list",
    (dict, type(None)): "an object or null",
    (int, type(None)): "a whole number or null",
}
