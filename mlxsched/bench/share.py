"""A small file with the results of one machine, which users can send: no paths, host names or user names."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlxsched.errors import UserError
from mlxsched.runs.json_file import read_object

FORMAT = 1
_FEW_NUMBERS = re.compile(r"\d+(?:\.\d+)?")


def document(cases: Mapping[str, dict[str, Any]], skipped: Mapping[str, str]) -> dict[str, Any]:
    """The contents of the file: ``cases`` that were measured, and why others were not."""
    from mlxsched.platform.machine import describe

    machine = describe()
    release = _FEW_NUMBERS.match(platform.release())  # the rest may name a company's kernel
    return {
        "format": FORMAT,
        "machine": {
            "chip": machine.chip,
            "device": machine.device,
            "system": f"{platform.system()} {release.group() if release else ''} {platform.machine()}",
            "cores": machine.cores,
            "memory_gb": machine.memory_gb,
            "gpu_memory_gb": machine.gpu_memory_gb,
            "blas": machine.blas,
        },
        "versions": machine.versions,
        "cases": dict(cases),
        "skipped": dict(skipped),
    }


def read_shared(path: Path) -> dict[str, Any]:
    """The document in the file ``path``, which is untrusted.

    Raises ``UserError`` if it is damaged, or of a later format.
    """
    found: dict[str, Any] = read_object(path)
    if found.get("format") != FORMAT:
        raise UserError(f"{path}: format must be {FORMAT}; got {found.get('format')!r}. Update mlxsched.")
    for key in ("machine", "versions", "cases"):
        if not isinstance(found.get(key), dict):
            raise UserError(f"{path}: {key!r} must be an object. The file is damaged.")
    if not all(isinstance(case, dict) for case in found["cases"].values()):
        raise UserError(f"{path}: every case must be an object. The file is damaged.")
    return found
