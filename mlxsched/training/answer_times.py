"""Estimates how long the answers to the test prompts will take, from a few that are generated before the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from mlxsched.data.batching.grid import Shape
from mlxsched.data.rows import Example
from mlxsched.model.generate import answer_all
from mlxsched.training.session import Session
from mlxsched.training.shape_times import Stopwatch

# A generated token takes this many times as long as a position of a forward pass, and far more in a small model: so it is
# timed where time is left.
STEP = 3.0
# Prompts that are timed: a CPU takes as long for each of them, a GPU answers a whole batch in the time of one.
ANSWERED_CPU, ANSWERED_GPU = 8, 32
LATE = 0.5  # seconds that the timing of answers, or of the optimizer, may take when no time is left
LEAST = 32  # tokens that must be timed: they come in bursts of one for each prompt, so few say little


class Lengths(NamedTuple):
    """Tokens of all prompts, of the answers that a model gave, and of the expected answers."""

    prompts: int
    answers: int
    expected: int

    @property
    def weight(self) -> float:
        """The time of the answers that were given, in units of a position of a forward pass.

        Prompts count too: where answers are short, reading the prompts takes most of the time.
        """
        return self.prompts + STEP * self.answers

    @property
    def trained_weight(self) -> float:
        """The time of answers as long as the expected ones, as a trained model gives them, in the same units.

        >>> lengths = Lengths(prompts=6000, answers=1050, expected=4000)
        >>> round(lengths.trained_weight / lengths.weight, 2)
        1.97
        """
        return self.prompts + STEP * self.expected


class AnswerTimes(NamedTuple):
    """Seconds of the answers that the model gives before training, and after it."""

    before: float = 0.0
    after: float = 0.0


def lengths_of(examples: list[Example], tokenizer: Any, answers: int) -> Lengths:
    """The lengths of ``examples``, to which a model gave answers of ``answers`` tokens in all."""
    expected = sum(len(tokenizer.encode(one.answer, add_special_tokens=False)) + 1 for one in examples)
    return Lengths(sum(len(one.prompt) for one in examples), answers, expected)


def growth_of_answers(measured: Mapping[str, Any]) -> float:
    """How much longer answering takes after training than when ``measured``, as a run records it, before training.

    1 without answers, and where they were longer than expected, as they may stay so.

    >>> growth_of_answers({"tokens": {"prompts": 6000, "answers": 1050, "expected": 4000}}) > 1.9
    True
    >>> growth_of_answers({"test_loss": 2.2})
    1.0
    """
    if "tokens" not in measured:
        return 1.0
    lengths = Lengths(**measured["tokens"])
    return max(lengths.trained_weight / lengths.weight, 1.0)


def times_of_answers(
    session: Session,
    examples: list[Example],
    watch: Stopwatch,
    seconds: Callable[[Sequence[Shape]], float],
) -> AnswerTimes:
    """Seconds of answering ``examples``: a few are answered, and the time of all follows from their lengths.

    ``seconds`` gives the time of forward passes by their shapes. It is the basis where no time is left to answer.
    """
    tokenizer = session.loaded.tokenizer
    prompts = [(1, len(one.prompt)) for one in examples]
    lengths, reading = lengths_of(examples, tokenizer, 0), seconds(prompts)
    untimed = reading + STEP * seconds([(1, lengths.expected)])
    few = examples[: ANSWERED_CPU if mx.default_device().type == mx.DeviceType.cpu else ANSWERED_GPU]
    if 2 * seconds(prompts[: len(few)]) > watch.left:
        return AnswerTimes(untimed, untimed)
    times, finished = _token_times(session, few, watch)
    start, begun, *rest = times
    watch.spent += times[-1] - start
    if finished:
        timed = lengths_of(few, tokenizer, len(rest))
        every = lengths._replace(answers=len(rest) * len(examples) // len(few))
        unit = (times[-1] - begun) / timed.weight
        return AnswerTimes(begun - start + unit * every.weight, begun - start + unit * every.trained_weight)
    seen = len(rest) - 1  # after the first
    found = reading + (rest[-1] - rest[0]) / seen * lengths.expected if seen >= LEAST else untimed
    return AnswerTimes(found, found)


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
