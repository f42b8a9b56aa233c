"""``mlxsched fuse``: a model with the adapter in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import note, print_json, say, table

if TYPE_CHECKING:
    from mlxsched.export.fuse import FuseReport


@click.command()
@click.argument("run", type=Path)
@click.option("--save-path", type=Path, help="Folder for the model.  [default: RUN/fused]")
@click.option(
    "--dequantize",
    is_flag=True,
    help="Save floating-point weights: larger, but exact if the model is quantized.",
)
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--force", is_flag=True, help="Overwrite files of the same names that mlxsched did not write.")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    run: Path,
    save_path: Path | None,
    dequantize: bool,
    final: bool,
    force: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Merge the adapter of the run in directory RUN into the weights of its model, and check the result.

    The fused model must predict what the model with its adapter predicts: on a few rows of the run's data, the mean
    KL divergence per token may be at most 1e-5 nats in float32, 1e-3 on a device that multiplies float32 in TF32, and 1e-2
    in half precision. Otherwise nothing is written and the exit code is 3. The weights of a quantized model are
    quantized again, which costs some accuracy: the loss before and after says how much. --dequantize avoids that.

    \b
    Examples:
      mlxsched fuse runs/laptop-001
      mlxsched fuse runs/laptop-001 --save-path my-model --dequantize
    """
    from mlxsched.export.adapter import open_adapter
    from mlxsched.export.fuse import fuse

    adapter = open_adapter(run, final=final, trust_remote_code=trust_remote_code)
    target = save_path or run / "fused"
    report = fuse(adapter, target, dequantize=dequantize, force=force)
    if as_json:
        print_json(report.to_dict())
        return
    _show(report, target)


def _show(report: FuseReport, target: Path) -> None:
    """Print the comparison and its result. The loss includes prompts, so it exceeds that of answers alone; no limit applies."""
    bound = f"; up to {report.tolerance:g} is rounding" if report.tolerance is not None else ""
    loss = f"{report.loss_adapter:.4f} with the adapter, {report.loss_fused:.4f} fused"
    table(
        [
            ("KL divergence of predictions", f"{report.divergence:.2e} nats per token{bound}"),
            ("same most likely token", f"{report.same_choice:.1%}"),
            ("loss, prompts included", loss),
        ],
        title=f"Fused model compared with model and adapter, on {report.rows} rows, {report.tokens:,} tokens",
    )
    if not report.requantized:
        say("Passed: they differ only by rounding.")
    else:
        cost = report.loss_fused - report.loss_adapter
        note(f"Quantizing the fused weights again changed the loss by {cost:+.4f}; --dequantize avoids that.")
    say(f"Model: {target}\n\nNext:\n  mlx_lm.generate --model {target} --prompt 'Your request'")
