"""``mlxsched lora``: mlx_lm.lora, with our schedules in its YAML."""

from __future__ import annotations

import click

from mlxsched.cli.output import say


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """Run mlx_lm.lora unchanged, with our schedules accepted in the lr_schedule of its YAML.

    \b
    Example:
      mlxsched lora --config lora_config.yaml --train
    """
    from mlxsched.errors import MlxschedError, RunError
    from mlxsched.integrations.mlx_lm_lora import run

    if {"-h", "--help"} & set(arguments):
        say(f"{command.help}\n\nEverything below is mlx_lm.lora's own help.\n".replace("\b\n", ""))
    try:
        ctx.exit(run(arguments))
    except (MlxschedError, click.exceptions.Exit):
        raise
    except Exception as error:
        raise RunError(f"mlx_lm.lora stopped with {type(error).__name__}: {error}") from error
