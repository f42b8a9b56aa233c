"""Every error that mlxsched raises on purpose, and the exit code that each one ends a command with.

    MlxschedError                 1   anything that went wrong at run time
    ├── UserError                 2   the command, the config or the data must be changed
    │   ├── UsageError            2   a flag, a name or a path
    │   ├── ConfigError           2   a YAML file; carries file:line:column
    │   ├── ScheduleError         2   an argument of a schedule (a ValueError too)
    │   ├── DataError             2   a row; carries file:line
    │   └── ModelError            2   a model or an adapter that cannot be loaded
    ├── RunError                  1   a training that could not go on
    │   └── DivergedError         1   the numbers stopped being numbers
    ├── ChecksFailed              3   a check ran and found problems
    └── Stopped             128 + n   signal n ended the run, after a checkpoint

A message says what is wrong, the value or ``file:line``, and the fix.
"""

from __future__ import annotations


class MlxschedError(Exception):
    """The base of all; ``exit_code`` is what a command that ends with it returns."""

    exit_code = 1


class UserError(MlxschedError):
    """Something that only the user can mend: the command, the config or the data."""

    exit_code = 2


class UsageError(UserError):
    """A flag, a name or a path that does not fit."""


class ConfigError(UserError):
    """A configuration file that cannot be used; the message carries ``file:line:column``."""


class ScheduleError(UserError, ValueError):
    """An argument of a schedule that does not make sense; names argument, value and cure."""


class DataError(UserError):
    """Rows that cannot be trained on; the message carries ``file:line``."""


class ModelError(UserError):
    """A model, tokenizer or adapter that cannot be loaded."""


class RunError(MlxschedError):
    """A training that could not go on; what was last good is on disk."""


class DivergedError(RunError):
    """Losses or gradients stopped being finite; no update was made from them."""


class ChecksFailed(MlxschedError):
    """A check ran to its end and found problems."""

    exit_code = 3


class Stopped(MlxschedError):
    """A signal ended the run after a checkpoint."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
