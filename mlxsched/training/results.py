"""The results of a run: its model measured before the first update and after the last one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from mlxsched.data.rows import Example
from mlxsched.model import adapters
from mlxsched.model.evaluate import Evaluator, perplexity
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.generate import Answer, answer_all, can_match, exact_match
from mlxsched.runs.events import Measured
from mlxsched.training.answer_times import growth_of_answers, lengths_of
from mlxsched.training.loop import Loop
from mlxsched.training.session import Session

SAMPLES = 8
"""Test answers that run.json keeps."""
LONGEST_SAMPLE = 500
"""Characters of a text of a sample: 8 samples before and after stay below 24 kB."""
LONG_SAMPLES, LONG_SAMPLE_TEXT = 4, 200
"""Prompts with long answers, and the characters of each that are generated: about 50 tokens, seconds even on a large model."""


class Measurement:
    """Measures the model of a run with the loop's validation loss and, if the config asks for it, the test rows.

    ``path`` is the forward path of rows that are not trained on.
    """

    def __init__(self, session: Session, loop: Loop, path: ForwardPath) -> None:
        self._session, self._loop = session, loop
        self._evaluator = test_evaluator(session, path)

    def before(self) -> None:
        """Measure the model before training, as a reference for the results."""
        progress = self._loop.progress
        if progress.update or "before" in progress.results:
            return
        if progress.evaluated_update is None:  # a stop during the test rows left the validation loss recorded
            self._loop.evaluate()
        self._loop.engine.load_into_model()
        started = time.perf_counter()
        progress.results["before"] = measured = self._measured("before")
        again = (time.perf_counter() - started) * growth_of_answers(measured)
        self._loop.emit(Measured(progress.update, again))

    def after(self, adapter: Path) -> None:
        """Measure the model with ``adapter`` as it was written, which is what the user gets."""
        progress = self._loop.progress
        if "after" in progress.results:
            return
        adapters.load_weights(self._session.loaded.model, adapter)
        progress.results["after"] = self._measured("after")
        self._loop.save()

    def _measured(self, when: str) -> dict[str, Any]:
        """The measures; ``when``, "before" or "after", appears in the progress display."""
        measured: dict[str, Any] = {"update": self._loop.progress.update}
        loss = self._loop.progress.best_loss
        if loss is not None:
            measured |= {"loss": loss, "perplexity": perplexity(loss)}
        return measured | self._test_loss(when) | self._exact_match(when)

    def _test_loss(self, when: str) -> dict[str, Any]:
        if self._evaluator is None:
            return {}
        tree = self._session.loaded.model.trainable_parameters()
        result = self._evaluator(tree, self._loop.ticker(f"test loss {when} training"))
        return {"test_loss": result.loss, "test_perplexity": result.perplexity}

    def _exact_match(self, when: str) -> dict[str, Any]:
        """The share of test prompts that the model answers exactly right, where answers are short enough for that.

        Some of the answers are kept, for a report that shows them before and after. Long answers are only sampled.
        """
        session = self._session
        examples = test_examples(session)
        asked = examples or long_examples(session)
        if not asked:
            return {}
        model, tokenizer = session.loaded.model, session.loaded.tokenizer
        tick = self._loop.ticker(f"test answers {when} training")
        shared = session.config.shares_prompts
        answers = answer_all(model, tokenizer, asked, tick, memory=session.answering_memory, shared=shared)
        tokens = lengths_of(asked, tokenizer, sum(answer.tokens for answer in answers))._asdict()
        kept = {"tokens": tokens, "answers": samples(tokenizer, asked, answers)}
        return {"exact_match": exact_match(answers), "asked": len(answers), **kept} if examples else kept


def samples(tokenizer: Any, examples: list[Example], answers: list[Answer]) -> list[dict[str, str]]:
    """At most `SAMPLES` evenly spaced prompts with the expected and the generated answers, as text of bounded
    length."""
    every = max(1, len(examples) // SAMPLES)
    chosen = list(zip(examples, answers, strict=True))[::every][:SAMPLES]
    return [
        {
            "prompt": _ending(_readable(tokenizer, example.prompt)),
            "expected": answer.expected[:LONGEST_SAMPLE],
            "answer": answer.text[:LONGEST_SAMPLE],
        }
        for example, answer in chosen
    ]


def _readable(tokenizer: Any, prompt: Sequence[int]) -> str:
    """A prompt as text, with a new line wherever special tokens separate its parts, such as system prompt and question."""
    parts = groupby(prompt, set(tokenizer.all_special_ids).__contains__)
    texts = [tokenizer.decode(list(part), skip_special_tokens=True) for special, part in parts if not special]
    return "\n".join(text.strip() for text in texts if text.strip())


def _ending(text: str) -> str:
    """The end of a long prompt, from the beginning of a word on where it has any."""
    if len(text) <= LONGEST_SAMPLE:
        return text
    cut = text[-LONGEST_SAMPLE:]
    return cut if text[-LONGEST_SAMPLE - 1].isspace() else (cut.split(None, 1)[1:] or [cut])[0]


def test_evaluator(session: Session, path: ForwardPath) -> Evaluator | None:
    """What measures the loss on the test rows along ``path``; None where it is not wanted."""
    test, limit = session.dataset.test, _limit(session)
    if test is None or not session.config.test or limit == 0:
        return None
    return Evaluator(session.loaded.model, test, path, max_tokens=session.micro_batch_tokens, limit=limit)


def test_examples(session: Session) -> list[Example]:
    """The test prompts to ask; none where answers are too long to match."""
    test = session.dataset.test
    examples = (test.examples() if test is not None and session.config.test else None) or []
    return examples[: _limit(session)] if can_match(examples, session.loaded.tokenizer) else []


def long_examples(session: Session) -> list[Example]:
    """A few test prompts whose answers are too long to match, with the beginnings of the answers."""
    test = session.dataset.test
    examples = (test.examples() if test is not None and session.config.test else None) or []
    few = examples[: _limit(session)][:LONG_SAMPLES]
    return [example._replace(answer=example.answer[:LONG_SAMPLE_TEXT]) for example in few]


def _limit(session: Session) -> int | None:
    config = session.config
    return None if config.test_batches < 0 else config.test_batches * config.batch_size
