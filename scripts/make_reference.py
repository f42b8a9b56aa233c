"""The reference of all commands and config keys, as Markdown, made from the code that parses them.

    python scripts/make_reference.py FOLDER    # writes commands.md and config.md

The site's build calls `build`, so that the pages can't be out of date.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from mlxsched.cli.main import COMMANDS, cli
from mlxsched.cli.options import GROUPS
from mlxsched.config.schema import LoraParameters, RunConfig, json_schema

RUN_FLAGS = "train"  # the command whose page lists the flags of a run; the others refer to it


def build() -> dict[str, str]:
    """The pages by their path inside the site."""
    return {"reference/commands.md": commands_page(), "reference/config.md": config_page()}


def commands_page() -> str:
    """Usage, help and flags of every command, in the order of `mlxsched --help`."""
    index = ["| command | |", "| --- | --- |"]
    index += [f"| [`mlxsched {name}`](#mlxsched-{name}) | {line} |" for name, line in COMMANDS.items()]
    sections = [_command(path, command) for path, command in _walk(cli, "mlxsched") if path != "mlxsched"]
    return "\n\n".join(
        [
            "# Commands",
            "Generated from the code. `mlxsched COMMAND --help` prints the same. `--json` prints results as JSON. "
            "Exit codes: 0 done, 1 failed, 2 a mistake in the command, config or data, 3 a check found problems, "
            "130 and similar for signals.",
            "\n".join(index),
            *sections,
        ]
    )


def config_page() -> str:
    """Every key of a config file with its type, default and meaning."""
    types = json_schema()
    fields = {key: field for key, field in RunConfig.model_fields.items() if key != "lora_parameters"}
    fields |= {f"lora_parameters.{key}": field for key, field in LoraParameters.model_fields.items()}
    groups = {heading: keys.split() for heading, keys in GROUPS.items()}
    flagged = {key for keys in groups.values() for key in keys}
    groups["In a file only"] = [key for key in fields if key not in flagged]
    parts = [
        "# Configuration",
        "Generated from the code. A config file is YAML with these keys, and `preset: NAME` to start from a preset. "
        "Except for those in the last section, each key is also a flag: its last part with dashes, `--max-seq-length` "
        "or `--rank`. A flag wins over the file, the file over the preset, the preset over the default. "
        "`mlxsched train --dry-run` shows where each value comes from, and `mlxsched config schema` prints the JSON "
        "Schema that editors use. Sizes may be written `6GB`, times `10m` or `2h`, shares `20%`.",
    ]
    for heading, keys in groups.items():
        rows = [
            (
                f"`{key}`",
                _type(_schema_of(types, key)),
                _default(fields[key].default),
                fields[key].description,
            )
            for key in keys
        ]
        parts += [f"## {heading}", _table(("key", "type", "default", "meaning"), rows)]
    return "\n\n".join(parts) + "\n"


def _walk(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from _walk(inner, f"{path} {name}")


def _command(path: str, command: click.Command) -> str:
    words = path.split()
    context = click.Context(command, info_name=path)
    parts = [f"{'#' * len(words)} {path}", f"```text\n{' '.join(command.get_usage(context).split())}\n```"]
    parts += [_help_text(command)]
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    shared = [option for option in options if getattr(option, "group", "")]
    if shared and path != f"mlxsched {RUN_FLAGS}":
        options = [option for option in options if option not in shared]
        parts += [
            f"Takes all flags of a run that [`mlxsched {RUN_FLAGS}`](#mlxsched-{RUN_FLAGS}) takes, and these:"
        ]
    if options:
        rows = [(_flag(option), _help(option)) for option in options]
        parts += [_table(("flag", "meaning"), rows)]
    return "\n\n".join(parts)


def _help_text(command: click.Command) -> str:
    r"""The help as Markdown: click's ``\b`` paragraphs keep their line breaks, so they become code."""
    paragraphs = inspect.cleandoc(command.help or "").split("\n\n")
    return "\n\n".join(
        f"```text\n{inspect.cleandoc(part.removeprefix(chr(8))).strip()}\n```"
        if part.startswith("\b")
        else " ".join(part.split())
        for part in paragraphs
    )


def _flag(option: click.Option) -> str:
    names = "/".join([", ".join(option.opts), *option.secondary_opts])
    kind = option.metavar or (
        "" if option.is_flag else option.make_metavar(click.Context(click.Command("x")))
    )
    return f"`{names}{' ' + kind if kind else ''}`"


def _help(option: click.Option) -> str:
    return " ".join((option.help or "").split())


def _schema_of(types: dict[str, Any], key: str) -> dict[str, Any]:
    outer, _, inner = key.partition(".")
    properties = types["$defs"]["LoraParameters"]["properties"] if inner else types["properties"]
    found: dict[str, Any] = properties[inner or outer]
    return found


def _type(part: dict[str, Any]) -> str:
    """The kinds of value that a key takes, as its schema has them."""
    if "enum" in part:
        return " ".join(f"`{value}`" for value in part["enum"])
    kinds = [inner.get("type", "object") for inner in part.get("anyOf", [part])]
    return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "null")


def _default(value: object) -> str:
    return "" if value in (None, "", {}) else f"`{json.dumps(value)}`"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    cells = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for path, text in build().items():
        (folder / Path(path).name).write_text(text, encoding="utf-8")
