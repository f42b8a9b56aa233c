"""Trainings from one start: what is trained in between is undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mlxsched.training.engine import Engine


@contextmanager
def restoring(engine: Engine) -> Iterator[None]:
    """Give ``engine`` and its model the present parameters and optimizer state again at the end.

    The model, too: tracing leaves placeholders in it, and the next session may use it. Full fine-tuning trains its
    weights, so without this the trials of a second seed would begin where those of the first one ended.
    """
    start = engine.snapshot()
    try:
        yield
    finally:
        engine.restore(start)
        engine.load_into_model()
