"""Restores the start of a training afterwards, so that several trainings can share it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlxsched.training.engine import Engine


@contextmanager
def restoring(engine: Engine) -> Iterator[None]:
    """Restore the present parameters and optimizer state of ``engine`` and its model at the end.

    The model, too: tracing leaves placeholders in it, and the next session may use it. Full fine-tuning trains its
    weights, so without this the trials of a second seed would begin where those of the first one ended.
    """
    start = engine.snapshot()
    try:
        yield
    finally:
        engine.restore(start)
        engine.load_into_model()
