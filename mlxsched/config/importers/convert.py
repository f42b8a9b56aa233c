"""From files of other trainers to one configuration of ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mlxsched.config.importers.draft import Draft, Entry, shown
from mlxsched.config.importers.leftovers import sort_remaining
from mlxsched.config.importers.result import ImportedConfig, in_our_order
from mlxsched.config.importers.source import SourceFile, read_source
from mlxsched.config.importers.tools import TOOLS
from mlxsched.config.schema import RunConfig
from mlxsched.errors import ConfigError, UsageError
from mlxsched.text import did_you_mean

_MLX_LM = {"lora_parameters", "iters", "fine_tune_type", "lr_schedule", "adapter_path"}


def import_config(paths: Sequence[Path], tool: str | None = None) -> ImportedConfig:
    """Convert one file, or several that belong to one run: training arguments and an ``adapter_config.json``.

    Where two files decide the same key, the later one wins and the earlier one is listed as a leftover.

    Args:
        paths: the files.
        tool: a key of `TOOLS`; by default each file is recognised by its keys.

    Raises:
        ConfigError: a file cannot be read or converted; with ``file:line`` and the fix.
        UsageError: ``tool`` is unknown, or no format fits a file.
    """
    if tool is not None and tool not in TOOLS:
        raise UsageError(
            f"No such format: {tool!r}.{did_you_mean(tool, list(TOOLS))} There are {', '.join(TOOLS)}."
        )
    drafts = [_convert(read_source(path), tool) for path in paths]
    entries: dict[str, tuple[Draft, Entry]] = {}
    for draft in drafts:
        for entry in draft.entries:
            before = entries.get(entry.key)
            # A default of a later file says less than what an earlier file states.
            if before is None or entry.origin.startswith("from "):
                entries[entry.key] = (draft, entry)
    result = ImportedConfig(
        sources=[f"{draft.source.path.name} ({draft.tool})" for draft in drafts],
        entries=in_our_order([entry for _, entry in entries.values()]),
        leftovers=[leftover for draft in drafts for leftover in draft.leftovers],
        without_effect=[key for draft in drafts for key in draft.without_effect()],
        problems=[problem for draft in drafts for problem in draft.source.problems],
    )
    _check(result)
    return result


def _convert(source: SourceFile, named: str | None) -> Draft:
    tool = TOOLS[named or recognise(source)]
    draft = Draft(source, tool.title, tool.names, tool.defaults)
    tool.convert(draft)
    sort_remaining(draft)
    return draft


def recognise(source: SourceFile) -> str:
    """Return the key of `TOOLS` whose signs a file has most of."""
    keys = set(source.values)
    counts = {name: len(keys & tool.signs) for name, tool in TOOLS.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] and not (counts[best] == 1 and len(keys & _MLX_LM) > 1):
        return best
    if keys & _MLX_LM:
        raise UsageError(
            f"{source.path} looks like a config of mlx-lm, which runs unchanged: mlxsched train -c {source.path}. "
            f"`mlxsched explain {source.path}` shows what differs."
        )
    listed = ", ".join(shown(key) for key in list(keys)[:6]) or "none"
    raise UsageError(
        f"{source.path} is none of the known formats; its keys are {listed}. Name the format with --from: "
        f"{', '.join(TOOLS)}."
    )


def _check(result: ImportedConfig) -> None:
    """Refuse values that our schema refuses, at the place in the source where they stand."""
    try:
        RunConfig(**result.values)
    except ValidationError as error:
        origins = {entry.key: entry.origin for entry in result.entries}
        problems = [_problem(detail, origins) for detail in error.errors(include_url=False)]
        raise ConfigError("; ".join(dict.fromkeys(problems))) from None


def _problem(detail: Any, origins: dict[str, str]) -> str:
    keys = [str(key) for key in detail["loc"]]
    origin = origins.get(".".join(keys[:2])) or origins.get(keys[0] if keys else "") or "the file"
    return f"{origin.removeprefix('from ')}: {detail['msg']}; got {shown(detail['input'])}"
