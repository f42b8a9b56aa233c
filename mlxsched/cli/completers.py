"""What the shell offers for an argument: schedules, presets, runs, trackers, and the values of settings.

Used only while a shell completes a line, so that no command pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, get_args, get_origin

import click
from click.shell_completion import CompletionItem

Names = Callable[[], Iterable[str]]


def attach(name: str, command: click.Command) -> None:
    """Let the parameters of the command ``name``, and of its subcommands, complete their values."""
    for parameter in command.params:
        found = _names_for(name, parameter)
        if found is not None:
            complete = partial(_offer, found, paths=parameter.name in ("run", "schedules"))
            parameter.shell_complete = complete  # type: ignore[method-assign]  # else each file would name it
    if isinstance(command, click.Group):
        for child in command.commands.values():
            attach(name, child)


def _names_for(command: str, parameter: click.Parameter) -> Names | None:
    """What completes a parameter: known by its name, or by the values that its setting may have."""
    key = getattr(parameter, "key", "") or parameter.name or ""
    if key == "name" and isinstance(parameter, click.Argument):
        return {"presets": presets, "schedules": schedules}.get(command)
    return _BY_NAME.get(key) or _literals(key)


def _offer(names: Names, ctx: click.Context, incomplete: str, *, paths: bool = False) -> list[CompletionItem]:
    """The names that begin with what was typed; files too where a path may be meant."""
    items = [CompletionItem(name) for name in names() if name.startswith(incomplete)]
    if paths or not items:
        # First, because bash forgets what it was offered before it.
        items.insert(0, CompletionItem(incomplete, type="file"))
    return items


def presets() -> list[str]:
    """The names of the presets."""
    from mlxsched.config.presets import preset_names

    return preset_names()


def schedules() -> list[str]:
    """The names of the schedules: families, and all others."""
    from mlxsched.schedules.defaults import FAMILIES
    from mlxsched.schedules.registry import alias_names, names

    return list(dict.fromkeys([*FAMILIES, *names(), *alias_names()]))


def runs() -> list[str]:
    """The directories of runs under ``runs/``, newest first."""
    from mlxsched.runs.directory import DEFAULT_ROOT, runs_in

    found = runs_in(DEFAULT_ROOT)
    try:
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    except OSError:
        return []
    return [str(path) for path in found]


def _sources() -> list[str]:
    return [*schedules(), *presets(), *runs()]


def _trackers() -> list[str]:
    from mlxsched.tracking.names import TRACKERS

    return list(TRACKERS)


def _formats() -> list[str]:
    from mlxsched.config.importers import TOOLS

    return list(TOOLS)


def _literals(key: str) -> Names | None:
    """The values of a setting that has few, such as the optimizer."""
    from mlxsched.config.schema import RunConfig

    field = RunConfig.model_fields.get(key)
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return partial(map, str, get_args(field.annotation))


_BY_NAME: dict[str, Names] = {
    "preset": presets,
    "schedule": schedules,
    "schedules": _sources,
    "run": runs,
    "report_to": _trackers,
    "tool": _formats,
    "model": lambda: ["tiny"],
    "data": lambda: ["excel"],
}
