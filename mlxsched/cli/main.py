"""The ``mlxsched`` command: a group that imports a command only when it is called."""

from __future__ import annotations

import contextlib
import errno
import importlib
import keyword
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlxsched.errors import MlxschedError, Stopped

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

# The reader of our output has gone (`mlxsched ... | head`). Like other commands, we end silently with the exit code that
# a shell gives for SIGPIPE, which says that the output is incomplete.
CLOSED_PIPE = 128 + 13

COMPLETE_VARIABLE = "_MLXSCHED_COMPLETE"  # set by the script of `mlxsched completion`, read by click

# Name -> its line in `mlxsched --help`. The command is `command` in the module of that name.
COMMANDS = {
    "train": "Fine-tune a model.",
    "plan": "Show what a run would do, without training.",
    "check": "Say whether a schedule is healthy, and how to fix it.",
    "diagnose": "Say what went wrong in a run, and how to fix it.",
    "resume": "Continue a run that was stopped.",
    "extend": "Make a run longer.",
    "cooldown": "End a run with a decay.",
    "runs": "List, sort, filter and remove runs.",
    "eval": "Evaluate a run: loss, perplexity, exact match.",
    "generate": "Answer a prompt with a run's model.",
    "chat": "Chat with a run's model.",
    "fuse": "Merge the adapter into the weights of its model.",
    "export": "Convert the adapter for PEFT, llama.cpp or Ollama.",
    "push": "Upload the adapter, with a model card, to the Hugging Face Hub.",
    "presets": "List, show or copy the presets.",
    "data": "Check a data set, or show rows as the model sees them.",
    "schedules": "List the schedules, or show one.",
    "explain": "Show what an mlx-lm config does in mlx-lm and here.",
    "lora": "Run mlx_lm.lora with our schedules in its YAML.",
    "import": "Convert another trainer's configuration.",
    "lr-find": "Find the peak learning rate of a run.",
    "compare": "Compare schedules, settings, lengths or runs.",
    "plot": "Plot schedules and recorded runs.",
    "report": "Write a report of runs as one HTML file.",
    "watch": "Follow a run until it ends, here or in a browser.",
    "models": "List the models on this machine.",
    "bench": "Compare speed and memory with mlx-lm's loop.",
    "cache": "Show or clear what is cached on disk.",
    "config": "Show the keys of a config file, or its JSON Schema.",
    "completion": "Print the script that completes commands in a shell.",
    "env": "Show versions, device, memory and BLAS.",
}


def module_of(command: str) -> str:
    """The module of a command; a Python keyword gets an underscore.

    >>> module_of("lr-find"), module_of("import")
    ('mlxsched.cli.lr_find', 'mlxsched.cli.import_')
    """
    return f"mlxsched.cli.{command.replace('-', '_')}{'_' * keyword.iskeyword(command)}"


class _ClosedPipe(Exception):
    """Standard output or standard error lost its reader."""


@contextlib.contextmanager
def _watching_pipes() -> Iterator[None]:
    """Raise `_ClosedPipe` where click and rich would exit with code 1."""
    try:
        yield
    except BrokenPipeError as error:
        raise _ClosedPipe from error
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):
            raise _ClosedPipe from end
        raise


def _discard_output() -> None:
    """Send what is left in the buffers nowhere; the interpreter would report it as an error at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


class LazyGroup(click.Group):
    """Lists its commands from a table, so that the help imports none of them."""

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
        module = importlib.import_module(module_of(cmd_name))
        command: click.Command = module.command
        if COMPLETE_VARIABLE in os.environ:
            from mlxsched.cli.completers import attach

            attach(cmd_name, command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer the commands from the table; click's own method would import them all."""
        from click.shell_completion import CompletionItem

        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return [
            CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)
        ]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As in click, but an unknown name gets a suggestion."""
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
    """Fine-tune language models on MLX, with the learning-rate schedule planned before the run.

    \b
    Start here:
      mlxsched train --preset laptop
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; a user's mistake gets a message, never a traceback."""
    _replace_unencodable()
    try:
        result = cli.main(args=arguments, prog_name="mlxsched", standalone_mode=False)
    except click.exceptions.Abort:
        return _report("Stopped.", 130)
    except _ClosedPipe:
        _discard_output()
        return CLOSED_PIPE
    except click.ClickException as error:
        if isinstance(error, click.NoSuchOption):
            from mlxsched.cli.flags import with_hint

            error = with_hint(error, sys.argv[1:] if arguments is None else arguments)
        error.show()
        return error.exit_code
    except MlxschedError as error:
        return _report(str(error) if isinstance(error, Stopped) else f"Error: {error}", error.exit_code)
    except OSError as error:
        return _report_system_error(error)
    except Exception as error:  # noqa: BLE001 - the last resort, which says how to see the traceback
        return _report_bug(error)
    return result if isinstance(result, int) else 0


def _replace_unencodable() -> None:
    """Print ``?`` for a character that the terminal's encoding lacks; the default is an exception."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _report(message: str, code: int) -> int:
    """Print an error on stderr, as far as that can be written."""
    from mlxsched.cli.output import note

    with contextlib.suppress(OSError):
        note(message)
    return code


def _report_system_error(error: OSError) -> int:
    """A file or stream that the system refused: a full device behind stdout, a name that is too long."""
    if os.environ.get("MLXSCHED_DEBUG"):
        raise error
    reason = error.strerror or str(error)
    if error.filename is None:
        _discard_output()
        return _report(f"Error: cannot write the output: {reason}.", 1)
    code = 2 if error.errno in (errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP) else 1
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    return _report(f"Error: {name[:200]}: {reason}. Check the path and its permissions.", code)


def _report_bug(error: Exception) -> int:
    if os.environ.get("MLXSCHED_DEBUG"):
        raise error
    return _report(
        f"Error: {type(error).__name__}: {error}\n"
        "This is a bug in mlxsched. Run the command again with MLXSCHED_DEBUG=1 for the traceback.",
        1,
    )


if __name__ == "__main__":
    sys.exit(main())
