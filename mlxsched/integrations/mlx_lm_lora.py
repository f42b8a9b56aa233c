"""``mlx_lm.lora`` with our schedules in the ``lr_schedule`` of its YAML; nothing else is changed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlxsched.errors import ScheduleError


def run(arguments: Sequence[str]) -> int:
    """Run ``mlx_lm.lora`` with command-line ``arguments`` and return its exit code.

    A block with ``arguments`` is mlx-lm's and goes to mlx-lm's own function. Any other block, or a text such as
    ``"wsd(decay=0.1)"``, is one of ours: peak and length come from ``learning_rate`` and the number of updates
    where they are left out.

    Raises:
        ScheduleError: the schedule cannot be built.
    """
    from mlx_lm import lora

    with _patched(lora), _argv(["mlxsched lora", *arguments]):
        try:
            main: Any = lora.main  # without types
            main()
        except SystemExit as end:  # argparse: 0 for --help, 2 for a mistake
            return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


@contextlib.contextmanager
def _patched(lora: Any) -> Iterator[None]:
    """Put our `build_schedule` in place of mlx-lm's while the block runs."""
    theirs, run_theirs = lora.build_schedule, lora.run
    settings: dict[str, Any] = {}

    def remember(args: Any, *rest: Any) -> Any:
        settings.update(vars(args))
        return run_theirs(args, *rest)

    def build(block: Any) -> Any:
        if isinstance(block, Mapping) and "arguments" in block:
            return theirs(block)
        return our_schedule(block, settings)

    lora.build_schedule, lora.run = build, remember
    try:
        yield
    finally:
        lora.build_schedule, lora.run = theirs, run_theirs


def our_schedule(block: Any, settings: Mapping[str, Any]) -> Any:
    """The schedule of an ``lr_schedule`` of ours, in a run of mlx-lm with these ``settings``.

    >>> run = {"iters": 400, "grad_accumulation_steps": 4, "learning_rate": 1e-4}
    >>> our_schedule({"name": "linear", "warmup": 10}, run)
    warmup_linear(peak=0.0001, steps=100, warmup=10, end=0.0)
    """
    from mlxsched.schedules import for_run

    updates = settings["iters"] // settings["grad_accumulation_steps"]
    if updates < 1:
        raise ScheduleError(
            f"{settings['iters']} iterations with grad_accumulation_steps {settings['grad_accumulation_steps']} make "
            "no update. Raise iters."
        )
    return for_run(block, peak=settings["learning_rate"], steps=updates)


@contextlib.contextmanager
def _argv(arguments: list[str]) -> Iterator[None]:
    """Let mlx-lm's parser, which reads ``sys.argv``, see ``arguments``."""
    before, sys.argv = sys.argv, arguments
    try:
        yield
    finally:
        sys.argv = before
