"""``mlxsched config``: what a config file may hold."""

from __future__ import annotations

import click

from mlxsched.cli.output import print_json, say, table


@click.group()
def command() -> None:
    """Show what a config file may hold.

    \b
    Examples:
      mlxsched config schema > mlxsched.schema.json
      mlxsched config keys
    """


@command.command()
def schema() -> None:
    """Print the JSON Schema of a config file, which editors use for completion and checks.

    \b
    Example, with the first line of a config that editors understand:
      mlxsched config schema > mlxsched.schema.json
      # yaml-language-server: $schema=mlxsched.schema.json
    """
    from mlxsched.config.schema import json_schema

    print_json(json_schema())


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def keys(as_json: bool) -> None:
    """List the keys of a config file with their defaults.

    \b
    Example:
      mlxsched config keys
    """
    from mlxsched.config.schema import LoraParameters, RunConfig

    fields = {key: field for key, field in RunConfig.model_fields.items() if key != "lora_parameters"}
    fields |= {f"lora_parameters.{key}": field for key, field in LoraParameters.model_fields.items()}
    rows = [(key, field.default, field.description or "") for key, field in fields.items()]
    if as_json:
        print_json([{"key": key, "default": default, "description": text} for key, default, text in rows])
        return
    table(
        [(key, "-" if default in (None, "") else default, text) for key, default, text in rows],
        header=("key", "default", ""),
    )
    say()
    say("A preset is a file of such keys: mlxsched presets show laptop")
