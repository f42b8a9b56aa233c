"""``mlxsched completion``: the script that completes commands in a shell."""

from __future__ import annotations

import click

from mlxsched.cli.output import say

SHELLS = ("bash", "zsh", "fish")
WHERE = {
    "bash": 'eval "$(mlxsched completion bash)" in ~/.bashrc',
    "zsh": 'eval "$(mlxsched completion zsh)" in ~/.zshrc, after compinit',
    "fish": "mlxsched completion fish > ~/.config/fish/completions/mlxsched.fish",
}


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print a script that completes commands, flags, schedules, presets and runs in SHELL.

    \b
    Examples:
      eval "$(mlxsched completion bash)"        in ~/.bashrc
      eval "$(mlxsched completion zsh)"         in ~/.zshrc, after compinit
      mlxsched completion fish > ~/.config/fish/completions/mlxsched.fish
    """
    from click.shell_completion import get_completion_class

    from mlxsched.cli.main import COMPLETE_VARIABLE, cli
    from mlxsched.errors import UsageError

    made = get_completion_class(shell)
    if made is None:
        raise UsageError(f"No completion for {shell}. There is one for {', '.join(SHELLS)}.")
    values = made(cli, {}, "mlxsched", COMPLETE_VARIABLE)
    # Not source(): for bash that runs bash to see its version, which may not be there.
    say(f"# {WHERE[shell]}\n{values.source_template % values.source_vars()}", nl=False)
