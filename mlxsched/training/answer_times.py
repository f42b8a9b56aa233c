"""Estimates how long the answers to the test prompts will take, from a few that are generated before the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from mlxsched.data.batching.grid import Shape
from mlxsched.data.rows import Example
from mlxsched.model.generate import answer_all
from mlxsched.training.session import Session
from mlxsched.training.shape_times import Stopwatch

STEP = 3.0  # a generated token takes that many times a position of a forward pass: far more in a small model, so time it
ANSWERED_CPU, ANSWERED_GPU = (
    8,
    32,
)  # prompts: a CPU takes as long for each, a GPU answers a whole batch in the time of one
LATE = 0.5  # seconds that the timing of answers, or of the optimizer, may take when no time is left
LEAST = 32  # tokens whose time says how long one takes: they come in bursts of one for each prompt


def seconds_of_answers(
    session: Session,
    examples: list[Example],
    watch: Stopwatch,
    seconds: Callable[[Sequence[Shape]], float],
) -> float:
    """Seconds of answering ``examples``: a few of them answer, and the others take as long for their length.

    ``seconds`` gives the time of forward passes by their shapes. It is the basis where no time is left to answer.
    """
    tokenizer = session.loaded.tokenizer
    answers = [len(tokenizer.encode(one.answer, add_special_tokens=False)) + 1 for one in examples]
    prompts = [(1, len(one.prompt)) for one in examples]
    reading, tokens = seconds(prompts), sum(answers)
    untimed = reading + STEP * seconds([(1, tokens)])
    asked = ANSWERED_CPU if mx.default_device().type == mx.DeviceType.cpu else ANSWERED_GPU
    if 2 * seconds(prompts[:asked]) > watch.left:
        return untimed
    times, finished = _token_times(session, examples[:asked], watch)
    start, begun, *rest = times
    watch.spent += times[-1] - start
    if finished:
        # By length and not by tokens alone: where answers are short, reading the prompts takes most of the time.
        lengths = [length + STEP * answer for (_, length), answer in zip(prompts, answers, strict=True)]
        return begun - start + (times[-1] - begun) / sum(lengths[:asked]) * sum(lengths)
    seen = len(rest) - 1  # after the first
    return reading + (rest[-1] - rest[0]) / seen * tokens if seen >= LEAST else untimed


def _token_times(session: Session, examples: list[Example], watch: Stopwatch) -> tuple[list[float], bool]:
    """When answering began, when the ways to read prompts were compared, and when each token came; whether it finished."""
    times, end = [watch.clock()], watch.clock() + watch.left + LATE

    def tick(done: int, total: int) -> None:
        times.append(watch.clock())
        if len(times) > 2 and times[-1] > end and done < total:
            raise _EnoughError

    loaded, memory = session.loaded, session.answering_memory  # as `Measurement` has it
    try:
        answer_all(loaded.model, loaded.tokenizer, examples, tick, memory=memory)
    except _EnoughError:
        return times, False
    return times, True


class _EnoughError(Exception):
    """Raised inside a generation that was timed for long enough."""
