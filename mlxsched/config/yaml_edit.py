"""Changes to the top-level keys of a YAML file that leave the rest of its text alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml


def with_values(text: str, new: Mapping[str, Any], written: Mapping[str, str]) -> str:
    """``text`` with the keys of ``new``: replaced where they stand, else added at the end.

    Comments and other keys stay. A file with an unusual layout is rewritten, without its comments.

    Args:
        text: a YAML mapping.
        new: the values by key.
        written: the line of each key.

    >>> print(with_values("warmup: 9  # ours\\nepochs: 2\\n", {"warmup": 5}, {"warmup": "warmup: 5"}), end="")
    warmup: 5
    epochs: 2
    """
    before = yaml.safe_load(text) or {}
    result = text if not text or text.endswith("\n") else text + "\n"
    for key, line in written.items():
        result = _replaced(result, key, line)
    if _others(result, new) != {key: value for key, value in before.items() if key not in new}:
        kept = {key: value for key, value in (yaml.safe_load(text) or {}).items() if key not in new}
        result = yaml.safe_dump(kept, sort_keys=False) if kept else ""
        result += "".join(f"{line}\n" for line in written.values())
    return result


def _replaced(text: str, key: str, line: str) -> str:
    """A key's line, with the indented lines that belong to it, replaced by ``line``."""
    found = re.compile(rf"^{re.escape(key)}[ ]*:.*\n(?:(?:[ ]+|- ?).*\n)*", re.MULTILINE)
    if found.search(text):
        return found.sub(lambda _: f"{line}\n", text, count=1)
    return f"{text}{line}\n"


def _others(text: str, new: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        return None
    return {key: value for key, value in values.items() if key not in new}
