"""The ``mlxsched`` command: a group whose commands are imported when they are called, not before."""

from __future__ import annotations

import contextlib
import importlib
import keyword
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from mlxsched.errors import MlxschedError, Stopped

# Who reads us has gone (`mlxsched ... | head`): the code that a shell gives for the signal SIGPIPE, as other commands
# end with it. Nothing is said, and the output is known to be incomplete.
CLOSED_PIPE = 128 + 13

# Name -> what `mlxsched --help` says of it. A command lives in the module of its name, as `command`.
COMMANDS = {
    "train": "Fine-tune a model.",
    "plan": "Show what a training would do, without doing it.",
    "resume": "Go on with a run that was stopped.",
    "eval": "Measure a run: loss, perplexity, exact match.",
    "generate": "Let a model answer a prompt.",
    "presets": "List, show and copy the presets.",
    "data": "Check a data set before training on it.",
    "schedules": "List the schedules, or show one.",
    "plot": "Draw schedules and recorded runs.",
    "import": "Convert a config of transformers, TRL, PEFT, axolotl or LLaMA-Factory.",
    "models": "List the models on this machine.",
    "bench": "Compare speed and memory with mlx-lm's loop.",
    "cache": "Show or clear what is kept on disk between runs.",
    "env": "Show versions, device, memory and the BLAS in use.",
}


class _ClosedPipe(Exception):
    """Standard output or standard error has no reader any more."""


@contextlib.contextmanager
def _watching_pipes() -> Iterator[None]:
    """Raise `_ClosedPipe` before click, or after rich, makes an exit with code 1 of it."""
    try:
        yield
    except BrokenPipeError as error:
        raise _ClosedPipe from error
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise _ClosedPipe from end
        raise


def _forget_output() -> int:
    """Send what is left in the buffers nowhere, or the interpreter complains of it at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return CLOSED_PIPE


class LazyGroup(click.Group):
    """Lists its commands from a table, so that showing the help imports none of them."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _watching_pipes():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _watching_pipes():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        name = cmd_name.replace("-", "_") + "_" * keyword.iskeyword(cmd_name)  # import_.py
        module = importlib.import_module(f"mlxsched.cli.{name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown name is answered with the nearest one."""
        name = args[0]
        if name in COMMANDS or name.startswith("-"):
            return super().resolve_command(ctx, args)
        from mlxsched.text import did_you_mean

        hint = did_you_mean(name, list(COMMANDS)) or f" The commands are {', '.join(COMMANDS)}."
        raise click.UsageError(f"No such command '{name}'.{hint}", ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from mlxsched import __version__

        click.echo(f"mlxsched {__version__}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version.",
)
def cli() -> None:
    """Fine-tune a language model on MLX under a learning-rate schedule that is planned before it runs.

    \b
    Start here:
      mlxsched train --preset laptop
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a user's mistake gets one message, never a traceback."""
    try:
        result = cli.main(args=arguments, prog_name="mlxsched", standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except _ClosedPipe:
        return _forget_output()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MlxschedError as error:
        _say(str(error) if isinstance(error, Stopped) else f"Error: {error}")
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last resort, which tells how to see the traceback
        return _report_bug(error)
    return result if isinstance(result, int) else 0


def _report_bug(error: Exception) -> int:
    if os.environ.get("MLXSCHED_DEBUG"):
        raise error
    _say(
        f"Error: {type(error).__name__}: {error}\n"
        "mlxsched did not expect this. Run it again with MLXSCHED_DEBUG=1 for the traceback."
    )
    return 1


def _say(message: str) -> None:
    """Print an error; it may quote a file or a model, so no control codes go through."""
    from mlxsched.cli.output import note, safe

    note(safe(message))


if __name__ == "__main__":
    sys.exit(main())
