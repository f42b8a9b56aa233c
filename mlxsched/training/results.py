"""What a run achieved: its model measured before the first update and after the last one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlxsched.data.rows import Example
from mlxsched.model import adapters
from mlxsched.model.evaluate import perplexity
from mlxsched.model.generate import answer_all, exact_match
from mlxsched.training.loop import Loop
from mlxsched.training.session import Session


def measure_before(session: Session, loop: Loop) -> None:
    """Evaluate the model as it comes, so that the end can say what the training changed."""
    if loop.progress.update or "before" in loop.progress.results:
        return
    loop.evaluate()
    loop.engine.load_into_model()
    loop.progress.results["before"] = _measured(session, loop)


def measure_after(session: Session, loop: Loop, adapter: Path) -> None:
    """Measure the model with ``adapter`` as it was written, which is what the user gets."""
    if "after" in loop.progress.results:
        return
    adapters.load_weights(session.loaded.model, adapter)
    loop.progress.results["after"] = _measured(session, loop)
    loop.save()


def _measured(session: Session, loop: Loop) -> dict[str, Any]:
    """Validation loss and perplexity and, where test rows have answers, the share that the model gets exactly right."""
    measured: dict[str, Any] = {"update": loop.progress.update}
    loss = loop.progress.best_loss
    if loss is not None:
        measured |= {"loss": loss, "perplexity": perplexity(loss)}
    examples = _examples(session)
    if examples:
        model, tokenizer = session.loaded.model, session.loaded.tokenizer
        limit = session.micro_batch_tokens // 2  # MLX allocates room for 256 more tokens of each answer
        answers = answer_all(model, tokenizer, examples, loop.ticker("test answers"), max_tokens=limit)
        measured |= {"exact_match": exact_match(answers), "asked": len(answers)}
    return measured


def _examples(session: Session) -> list[Example]:
    config, test = session.config, session.dataset.test
    examples = test.examples() if test is not None and config.test else None
    limit = None if config.test_batches < 0 else config.test_batches * config.batch_size
    return (examples or [])[:limit]
