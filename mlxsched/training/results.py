"""What a run achieved: its model measured before the first update and after the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxsched.data.rows import Example
from mlxsched.model import adapters
from mlxsched.model.evaluate import Evaluator, perplexity
from mlxsched.model.fast.forward_path import ForwardPath
from mlxsched.model.generate import answer_all, can_match, exact_match
from mlxsched.training.loop import Loop
from mlxsched.training.session import Session


class Measurement:
    """Measures the model of a run with the loop's validation loss and, if the config asks for it, the test rows.

    ``path`` is the forward path of rows that are not trained on.
    """

    def __init__(self, session: Session, loop: Loop, path: ForwardPath) -> None:
        self._session, self._loop = session, loop
        self._evaluator = test_evaluator(session, path)

    def before(self) -> None:
        """Measure the model as it comes, so that the end can say what the training changed."""
        progress = self._loop.progress
        if progress.update or "before" in progress.results:
            return
        if progress.evaluated_update is None:  # a stop during the test rows left the validation loss recorded
            self._loop.evaluate()
        self._loop.engine.load_into_model()
        progress.results["before"] = self._measured()

    def after(self, adapter: Path) -> None:
        """Measure the model with ``adapter`` as it was written, which is what the user gets."""
        progress = self._loop.progress
        if "after" in progress.results:
            return
        adapters.load_weights(self._session.loaded.model, adapter)
        progress.results["after"] = self._measured()
        self._loop.save()

    def _measured(self) -> dict[str, Any]:
        measured: dict[str, Any] = {"update": self._loop.progress.update}
        loss = self._loop.progress.best_loss
        if loss is not None:
            measured |= {"loss": loss, "perplexity": perplexity(loss)}
        return measured | self._test_loss() | self._exact_match()

    def _test_loss(self) -> dict[str, Any]:
        if self._evaluator is None:
            return {}
        tree = self._session.loaded.model.trainable_parameters()
        result = self._evaluator(tree, self._loop.ticker("test loss"))
        return {"test_loss": result.loss, "test_perplexity": result.perplexity}

    def _exact_match(self) -> dict[str, Any]:
        """The share of test prompts that the model answers exactly right, where answers are short enough for that."""
        session = self._session
        examples = test_examples(session)
        if not examples:
            return {}
        limit = session.micro_batch_tokens // 2  # MLX allocates room for 256 more tokens of each answer
        model, tokenizer = session.loaded.model, session.loaded.tokenizer
        tick = self._loop.ticker("test answers")
        shared = session.config.shares_prompts
        answers = answer_all(model, tokenizer, examples, tick, max_tokens=limit, shared=shared)
        return {"exact_match": exact_match(answers), "asked": len(answers)}


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


def _limit(session: Session) -> int | None:
    config = session.config
    return None if config.test_batches < 0 else config.test_batches * config.batch_size
