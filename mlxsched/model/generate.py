"""Answers by greedy generation, and how many of them are exactly right."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlx.nn.layers.base import Module

from mlxsched.data.rows import Example
from mlxsched.model.evaluate import OnProgress
from mlxsched.model.load import room_for_answer
from mlxsched.model.shared_prompt import Reading, cache_size, reading_of

LONGEST_ANSWER = 64  # median tokens; the bundled formulas have 20, chats have 200 and more
_JUDGED = 100  # examples that decide
_MOST_AT_ONCE = 32
MARGIN = 8  # tokens beyond the reference: an answer that is longer is wrong anyway


@dataclass(frozen=True)
class Answer:
    """The expected and the generated answer, and how many tokens were generated, with the one that ended it."""

    expected: str
    text: str
    tokens: int = 0

    @property
    def correct(self) -> bool:
        """Equal but for white space at both ends."""
        return self.text.strip() == self.expected.strip()


def answer_all(
    model: Module,
    tokenizer: Any,
    examples: list[Example],
    on_progress: OnProgress | None = None,
    *,
    memory: int | None = None,
    shared: bool = True,
) -> list[Answer]:
    """The greedy answer to each prompt, in order; stops at the end of a turn.

    Batches have at most 32 prompts, fewer where their caches would take more than ``memory`` bytes; prompts are read
    one by one if mlx-lm's batches are wrong for the model. ``shared``: the common prefix of all prompts may be read
    once.
    """
    from mlx_lm.generate import BatchGenerator

    model.eval()
    limits = _limits(model, tokenizer, examples)
    prompts = [list(example.prompt) for example in examples]
    reading = reading_of(model, prompts, shared=shared)
    at_once = _MOST_AT_ONCE if reading.together else 1
    if memory is not None and at_once > 1 and len(prompts) > 1:
        longest = max(len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True))
        at_once = _fitting(cache_size(model, longest), memory)
    generator: Any = BatchGenerator(
        model,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        completion_batch_size=at_once,
        prefill_batch_size=min(at_once, 8),
    )
    try:
        identifiers = _insert(generator, prompts, limits, reading)
        answers = _token_lists(generator, identifiers, on_progress)
    finally:
        generator.close()
        model.train()
    return [
        Answer(
            without_thinking(e.answer, tokenizer),
            without_thinking(tokenizer.decode(tokens), tokenizer),
            len(tokens) + 1,
        )
        for e, tokens in zip(examples, answers, strict=True)
    ]


def _limits(model: Module, tokenizer: Any, examples: list[Example]) -> list[int]:
    """The most tokens of each answer."""
    expected = [len(tokenizer.encode(e.answer, add_special_tokens=False)) for e in examples]
    rooms = [room_for_answer(model, len(e.prompt)) for e in examples]
    return [int(min(length + MARGIN, room)) for length, room in zip(expected, rooms, strict=True)]


def _insert(generator: Any, prompts: list[list[int]], limits: list[int], reading: Reading) -> list[int]:
    """Give ``prompts`` to ``generator``; returns their identifiers."""
    length, caches = reading.length, reading.caches
    more: dict[str, Any] = {}
    if caches is not None:
        # One list for all: the generator copies what it merges into a batch, and writes into the copy.
        more = {"caches": [caches] * len(prompts), "all_tokens": [prompt[:length] for prompt in prompts]}
    identifiers: list[int] = generator.insert([prompt[length:] for prompt in prompts], limits, **more)
    return identifiers


def _fitting(size: int, memory: int) -> int:
    """How many sequences with caches of ``size`` bytes are generated at once in ``memory`` bytes; at least one.

    A cache exists twice while it grows, and prompts that are being read have caches of their own.

    >>> _fitting(1_000_000, 20_000_000), _fitting(10**9, 20_000_000), _fitting(0, 20_000_000)
    (8, 1, 32)
    """
    return int(min(max(memory / (2.5 * max(size, 1)), 1), _MOST_AT_ONCE))


def _token_lists(generator: Any, identifiers: list[int], on_progress: OnProgress | None) -> list[list[int]]:
    """The tokens of each answer, in the order of ``identifiers``."""
    tokens: dict[int, list[int]] = {identifier: [] for identifier in identifiers}
    done = 0
    if on_progress:
        on_progress(done, len(identifiers))
    for identifier, token, finished in _generated(generator):
        if token is not None:
            tokens[identifier].append(token)
        done += finished
        if on_progress:  # at each token, so that a signal is handled quickly
            on_progress(done, len(identifiers))
    return [tokens[identifier] for identifier in identifiers]


def _generated(generator: Any) -> Iterator[tuple[int, int | None, bool]]:
    """Sequence, token (None for the stop token), and whether the sequence ends with it."""
    with generator.stats():
        while responses := generator.next_generated():
            for response in responses:
                token = None if response.finish_reason == "stop" else response.token
                yield response.uid, token, response.finish_reason is not None


def without_thinking(text: str, tokenizer: Any) -> str:
    """``text`` without the thinking that it begins with, where ``tokenizer`` marks thinking.

    Templates write an empty block in front of an answer, or open one in the prompt, so that only its end is in the
    answer. A block that is not closed is left: the answer never came.
    """
    if not tokenizer.has_thinking:
        return text
    thought, closed, rest = text.partition(tokenizer.think_end)
    leads = tokenizer.think_start not in thought or thought.lstrip().startswith(tokenizer.think_start)
    return rest if closed and leads else text


def can_match(examples: list[Example], tokenizer: Any) -> bool:
    """Whether answers are short enough for a share of exact matches to mean something.

    A chat's answers have hundreds of tokens and are never reproduced to the letter: 0.0% would say nothing.
    """
    lengths = [len(tokenizer.encode(e.answer, add_special_tokens=False)) for e in examples[:_JUDGED]]
    return bool(lengths) and statistics.median(lengths) <= LONGEST_ANSWER


def exact_match(answers: list[Answer]) -> float:
    """The share of correct answers, 0 to 1."""
    return sum(answer.correct for answer in answers) / len(answers)
