"""``mlxsched plan``: what a training would do, without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlxsched.cli.options import GroupedCommand, given_flags, run_options
from mlxsched.cli.output import print_json
from mlxsched.config import load_config


@click.command(cls=GroupedCommand)
@run_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--origins", is_flag=True, help="Show where each value comes from, too.")
@click.pass_context
def command(ctx: click.Context, /, preset: str | None, config: Path | None, **flags: Any) -> None:
    """Show what `mlxsched train` would do with the same flags: updates, tokens, schedule, memory.

    \b
    Examples:
      mlxsched plan --preset laptop
      mlxsched plan --preset lora --data my/folder --epochs 2 --json
      mlxsched plan --batch-size 4 --grad-accumulation-steps 8 --iters 1000
    """
    from mlxsched.cli.plan_view import plan_json, show_origins, show_plan
    from mlxsched.cli.train import make_session

    session = make_session(load_config(preset=preset, file=config, flags=given_flags(ctx)))
    if flags["as_json"]:
        print_json(plan_json(session))
        return
    show_plan(session, stderr=False)
    if flags["origins"]:
        show_origins(session, stderr=False)
