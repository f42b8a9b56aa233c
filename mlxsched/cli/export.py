"""``mlxsched export``: the adapter in the formats of other programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import print_json, say

if TYPE_CHECKING:
    from mlxsched.export.adapter import TrainedAdapter

FORMATS = ("peft", "gguf", "ollama")


@click.command()
@click.argument("run", type=Path)
@click.option("--to", "kind", type=click.Choice(FORMATS), required=True, help="The format.")
@click.option("--save-path", type=Path, help="Folder for the files.  [default: RUN/FORMAT]")
@click.option("--base-model", help="peft: the model's name on the Hub, if the run does not know it.")
@click.option(
    "--fused", is_flag=True, help="gguf: the whole model with the adapter in its weights, in float16."
)
@click.option(
    "--from", "base", help="ollama, gguf --fused: the base model: a GGUF file, or for ollama an Ollama model."
)
@click.option("--system", help="ollama: a system prompt for the Modelfile.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--force", is_flag=True, help="Overwrite files of the same names that mlxsched did not write.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Convert the adapter of the run in directory RUN.

    \b
    peft    adapter_model.safetensors and adapter_config.json, for transformers and PEFT
    gguf    adapter.gguf, for llama.cpp and LM Studio; with --fused model.gguf, the whole model
    ollama  adapter.gguf and a Modelfile

    \b
    Examples:
      mlxsched export runs/laptop-001 --to peft
      mlxsched export runs/laptop-001 --to gguf --save-path out
      mlxsched export runs/laptop-001 --to gguf --fused --from base-model.gguf
      mlxsched export runs/laptop-001 --to ollama --from llama3.2:1b
    """
    from mlxsched.errors import UsageError
    from mlxsched.export.adapter import open_adapter

    if options["fused"] and options["kind"] != "gguf":
        raise UsageError("--fused is for --to gguf. A fused model for MLX: mlxsched fuse RUN")
    adapter = open_adapter(run, final=options["final"])
    target = options["save_path"] or run / options["kind"]
    files = _write(adapter, target, options)
    if as_json:
        print_json({"run": str(run), "format": options["kind"], "path": str(target), "files": files})
        return
    for name in files:
        say(str(target / name))
    say(f"\nNext:\n  {_next('fused' if options['fused'] else options['kind'], run, target)}")


def _write(adapter: TrainedAdapter, target: Path, options: Mapping[str, Any]) -> list[str]:
    from mlxsched.export.gguf_adapter import export_gguf
    from mlxsched.export.gguf_model import export_fused
    from mlxsched.export.ollama import export_ollama
    from mlxsched.export.peft import export_peft

    force, base = options["force"], options["base"]
    if options["kind"] == "peft":
        return export_peft(adapter, target, base_model=options["base_model"], force=force)
    if options["kind"] == "ollama":
        return export_ollama(adapter, target, base=base, system=options["system"], force=force)
    if options["fused"]:
        return export_fused(adapter, target, base=base, force=force)
    return export_gguf(adapter, target, force=force)


def _next(kind: str, run: Path, target: Path) -> str:
    here = shlex.quote(str(target))
    if kind == "peft":
        return f"model.load_adapter({str(target)!r})  # in Python, on a transformers model"
    if kind == "fused":
        return f"llama-cli -m {here}/model.gguf"
    if kind == "gguf":
        return f"llama-cli -m BASE.gguf --lora {here}/adapter.gguf"
    return f"cd {here} && ollama create {run.resolve().name} -f Modelfile"
