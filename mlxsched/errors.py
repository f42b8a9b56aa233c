"""The exceptions of mlxsched, and the exit code with which each one ends a command.

    MlxschedError                 1   an error at run time
    ├── UserError                 2   the command, the config or the data must change
    │   ├── UsageError            2   a wrong flag, name or path
    │   ├── ConfigError           2   a config file; the message has file:line:column
    │   ├── ScheduleError         2   a schedule's argument (also a ValueError)
    │   ├── DataError             2   a row; the message has file:line
    │   └── ModelError            2   a model or an adapter that cannot be loaded
    ├── RunError                  1   a run that could not continue
    │   └── DivergedError         1   a run whose loss or gradients diverged
    ├── ChecksFailed              3   a check that found problems
    └── Stopped             128 + n   a run that signal n ended, after a checkpoint

A message says what is wrong, the value or ``file:line``, and the fix.
"""

from __future__ import annotations


class MlxschedError(Exception):
    """The base class; ``exit_code`` is the exit code of a command that ends with it."""

    exit_code = 1


class UserError(MlxschedError):
    """Something that only the user can fix: the command, the config or the data."""

    exit_code = 2


class UsageError(UserError):
    """A wrong flag, name or path."""


class ConfigError(UserError):
    """A config file that cannot be used; the message has ``file:line:column``."""


class ScheduleError(UserError, ValueError):
    """An invalid argument of a schedule; the message has the argument, its value and the fix."""


class DataError(UserError):
    """Rows that cannot be trained on; the message has ``file:line``."""


class ModelError(UserError):
    """A model, tokenizer or adapter that cannot be loaded."""


class RunError(MlxschedError):
    """A run that could not continue; its last good checkpoint is on the disk."""


class DivergedError(RunError):
    """A run that diverged; the last good adapter is on the disk."""


class ChecksFailed(MlxschedError):
    """A check that completed and found problems."""

    exit_code = 3


class Stopped(MlxschedError):
    """A run that a signal ended, after a checkpoint."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number
