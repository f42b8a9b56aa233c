"""Errors about flags that do not exist, with the flag as it was written."""

from __future__ import annotations

from collections.abc import Sequence

import click

from mlxsched.config.messages import SPELLING
from mlxsched.text import did_you_mean, printable


class UnknownFlag(click.NoSuchOption):
    """A flag that does not exist, with a message that needs no other hint."""


def as_written(option: str, args: Sequence[str]) -> str:
    """The flag as it was typed; click reports ``-p`` for ``-preset``.

    >>> as_written("-p", ["train", "-preset=laptop"]), as_written("--dry", ["plan", "--dry"])
    ('-preset', '--dry')
    """
    if option.startswith("--"):
        return option
    return next((arg.partition("=")[0] for arg in args if arg.startswith(option)), option)


def with_hint(error: click.NoSuchOption, args: Sequence[str]) -> click.NoSuchOption:
    """``error`` with a hint if a long flag has only one dash, or if a command's flag precedes the command."""
    flag, ctx = as_written(error.option_name, args), error.ctx
    if ctx is None or isinstance(error, UnknownFlag):
        return error
    known = [name for parameter in ctx.command.get_params(ctx) for name in parameter.opts]
    dashed = f"--{flag.lstrip('-')}" if len(flag) > 2 else flag
    hint = did_you_mean(dashed, known, SPELLING)
    if not hint and isinstance(ctx.command, click.Group):  # click suggests --help for --model
        hint = f" Put the flags of a command after it: {ctx.command_path} COMMAND {printable(dashed)}."
    if not hint:
        return error
    return UnknownFlag(error.option_name, f"No such option: {printable(flag)}.{hint}", ctx=ctx)
