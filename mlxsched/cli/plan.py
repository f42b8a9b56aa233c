"""``mlxsched plan``: show what a run would do, without training."""

from __future__ import annotations

from typing import Any

import click

from mlxsched.cli.auto_rate import at_found_rate, takes_auto
from mlxsched.cli.options import GroupedCommand, load_given, run_options
from mlxsched.cli.output import print_json


@click.command(cls=GroupedCommand)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--origins", is_flag=True, help="Also show where each value comes from.")
@click.option(
    "--estimate/--no-estimate",
    "wanted",
    default=None,
    help="Time a few micro-batches to estimate how long the run takes; by default if that takes only a few seconds.",
)
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Show what `mlxsched train` would do with the same flags: updates, tokens, schedule, memory, time.

    \b
    Examples:
      mlxsched plan --preset laptop
      mlxsched plan --preset lora --data my/folder --epochs 2 --json
      mlxsched plan --model Qwen/Qwen3-0.6B --data my/folder --estimate
      mlxsched plan --batch-size 4 --grad-accumulation-steps 8 --iters 1000
    """
    from mlxsched.cli.plan_view import plan_json, show_origins, show_plan
    from mlxsched.cli.train import make_session
    from mlxsched.training.estimate import estimate_plan

    auto = takes_auto(ctx.params)
    session = make_session(load_given(ctx))
    if auto:
        session = at_found_rate(session, search=False)
    expected = estimate_plan(session, wanted=flags["wanted"])
    if flags["as_json"]:
        print_json(plan_json(session, expected))
        return
    show_plan(session, stderr=False, expected=expected)
    if flags["origins"]:
        show_origins(session, stderr=False)
