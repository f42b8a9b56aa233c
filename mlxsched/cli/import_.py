"""``mlxsched import``: a configuration of another trainer, converted into ours."""

from __future__ import annotations

from pathlib import Path

import click

from mlxsched.cli.files import write_new
from mlxsched.cli.output import note, print_json, say
from mlxsched.text import counted


@click.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--from",
    "tool",
    metavar="FORMAT",
    help="transformers, peft, axolotl or llama-factory; recognised by default.",
)
@click.option(
    "-w", "--write", metavar="FILE", type=click.Path(path_type=Path), help="Write the config to FILE."
)
@click.option("--force", is_flag=True, help="Overwrite the file that --write names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    files: tuple[Path, ...], tool: str | None, write: Path | None, force: bool, as_json: bool
) -> None:
    """Convert a configuration of another trainer: TrainingArguments, SFTConfig, PEFT, axolotl, LLaMA-Factory.

    Several FILEs make one config: training arguments, and the adapter_config.json of the same run. Each line of
    the result names the line it comes from. What has no counterpart is listed in the header and on stderr.

    \b
    Examples:
      mlxsched import training_args.json adapter_config.json --write mine.yaml
      mlxsched import axolotl.yml > mine.yaml
      mlxsched import llama3_lora_sft.yaml --json
    """
    from mlxsched.config.importers import import_config
    from mlxsched.config.importers.result import leftover_lines

    result = import_config(files, tool)
    for line in [*leftover_lines(result), *result.problems]:
        note(f"No counterpart: {line}")
    for line in result.notes:
        note(f"Note: {line}")
    if write is not None:
        write_new(write, result.to_yaml(), force=force)
        note(f"Wrote {write} with {counted(len(result.entries), 'setting')}. Next: mlxsched plan -c {write}")
    if as_json:
        print_json(result.to_dict())
    elif write is None:
        say(result.to_yaml(), nl=False)
