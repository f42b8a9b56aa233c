"""The system prompt that the rows of a data set begin with: a model trained with one answers badly without it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from itertools import islice
from typing import Any

from mlxsched.data.options import DataOptions
from mlxsched.data.problems import RowProblem
from mlxsched.data.record import Record
from mlxsched.data.sources.files import FilesSource, SplitFileSource
from mlxsched.data.sources.open import open_source
from mlxsched.errors import DataError

LOOKED = 8  # rows


def system_prompt(source: str, options: DataOptions) -> str | None:
    """The system message of the first rows of ``source``, if they have the same one.

    None where they have none or different ones, for data on the hub, and for data that has been moved away.
    """
    with contextlib.suppress(DataError, RowProblem, OSError):
        opened = open_source(source, options)
        if isinstance(opened, FilesSource | SplitFileSource):
            found = {_system_of(record, options) for record in islice(opened.unsplit(), LOOKED)}
            return found.pop() if len(found) == 1 else None
    return None


def _system_of(record: Record, options: DataOptions) -> str | None:
    messages: Any = record.parsed().get(options.features.chat)
    first = messages[0] if isinstance(messages, list) and messages else None
    if not isinstance(first, Mapping) or first.get("role") != "system":
        return None
    content = first.get("content")
    return content if isinstance(content, str) else None
