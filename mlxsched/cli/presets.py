"""``mlxsched presets``: list, show and copy the presets."""

from __future__ import annotations

from pathlib import Path

import click

from mlxsched.cli.output import note, print_json, say, table
from mlxsched.text import number


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """List, show and copy presets: commented configuration files to start from.

    \b
    Examples:
      mlxsched presets
      mlxsched presets show laptop
      mlxsched presets copy laptop mine.yaml
    """
    if ctx.invoked_subcommand:
        return
    from dataclasses import asdict

    from mlxsched.config.catalog import list_presets

    presets = list_presets()
    if as_json:
        print_json([asdict(preset) for preset in presets])
        return
    rows = [(p.name, number(p.peak), p.schedule, p.warmup, p.description) for p in presets]
    table(rows, header=("preset", "peak", "schedule", "warmup", "use"))
    note("Train with `mlxsched train --preset NAME`; `mlxsched presets show NAME` explains the numbers.")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Print the file of a preset, with its comments.

    \b
    Example:
      mlxsched presets show laptop
    """
    from mlxsched.config.presets import find_preset

    say(find_preset(name).read_text(encoding="utf-8"), nl=False)


@command.command()
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite FILE.")
def copy(name: str, file: Path, force: bool) -> None:
    """Copy a preset to FILE, as a starting point for your own configuration.

    \b
    Example:
      mlxsched presets copy laptop mine.yaml
      mlxsched train --config mine.yaml
    """
    from mlxsched.config.presets import preset_copy
    from mlxsched.errors import UsageError
    from mlxsched.runs.atomic import write_bytes

    text = preset_copy(name)
    if file.is_dir():
        file /= f"{name}.yaml"
    if file.exists() and not force:
        raise UsageError(f"{file} exists. Choose another name, or add --force to overwrite it.")
    if not file.parent.is_dir():
        raise UsageError(f"No such directory: {file.parent}. Create it first.")
    write_bytes(file, text.encode())
    note(f"Wrote {file}. Train with `mlxsched train --config {file}`.")


@command.command()
def schema() -> None:
    """Print the JSON Schema of a config file, for completion and checks in editors.

    \b
    Example:
      mlxsched presets schema > mlxsched.schema.json
    """
    from mlxsched.config.schema import json_schema

    print_json(json_schema())
