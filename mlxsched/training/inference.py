"""A run's model put to use after the training: measured, and asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlxsched.config.schema import RunConfig
from mlxsched.data import DataOptions, Rows, load_dataset
from mlxsched.errors import DataError, ModelError
from mlxsched.model import adapters
from mlxsched.model.evaluate import Evaluator, LossResult
from mlxsched.model.fast.forward_path import PLAIN
from mlxsched.model.generate import Answer, answer_all, can_match, exact_match
from mlxsched.model.load import LoadedModel, load_model, max_positions
from mlxsched.runs.directory import RunDirectory
from mlxsched.training.acceleration import evaluation_path
from mlxsched.training.memory_plan import default_micro_batch_tokens

OnProgress = Callable[[str, int, int], None]


def load_run_model(
    run: RunDirectory,
    config: RunConfig,
    *,
    base: bool = False,
    final: bool = False,
    adapter: Path | None = None,
) -> LoadedModel:
    """The model of ``run`` with its best adapter; with the last one (``final``) or the one in the directory ``adapter``;
    or as it came (``base``).
    """
    loaded = load_model(
        config.model, trust_remote_code=config.trust_remote_code, dequantize=config.dequantize
    )
    if base:
        return loaded
    lora = config.lora_parameters.model_dump()
    adapters.attach(loaded.model, config.fine_tune_type, config.num_layers, lora, config.seed)
    # Where the last adapter is the best one, it is stored once.
    chosen = run.final_adapters if final and run.final_adapters.is_dir() else run.adapters
    directory = adapter or chosen
    if not directory.is_dir():
        raise ModelError(
            f"{run.path} has no adapter yet. Train it first, or evaluate the model without an adapter, with --base."
        )
    adapters.load_weights(loaded.model, directory)
    return loaded


@dataclass(frozen=True)
class Measured:
    """What a model does on the rows of a split; ``answers`` is None where rows have no prompt to ask."""

    split: str
    loss: LossResult
    answers: list[Answer] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "split": self.split,
            "rows": self.loss.rows,
            "targets": self.loss.targets,
            "loss": self.loss.loss,
            "perplexity": self.loss.perplexity,
            "exact_match": exact_match(self.answers) if self.answers else None,
            "asked": len(self.answers) if self.answers else 0,
        }


def measure(
    loaded: LoadedModel,
    config: RunConfig,
    *,
    split: str | None = None,
    cache_dir: Path | None = None,
    limit: int | None = None,
    ask: bool = True,
    on_progress: OnProgress = lambda what, done, total: None,
) -> Measured:
    """Loss and, with ``ask``, exact match on a split (default: test, else valid); ``limit`` takes the first rows."""
    split, rows = _split(config, loaded, split, cache_dir)
    shared = config.shares_prompts
    path = evaluation_path(loaded.model, rows, shared=shared) if config.fast else PLAIN
    evaluator = Evaluator(loaded.model, rows, path, max_tokens=default_micro_batch_tokens(), limit=limit)
    loss = evaluator(
        loaded.model.trainable_parameters(), lambda done, total: on_progress("loss", done, total)
    )
    examples = (rows.examples() or [])[:limit] if ask else []
    if not can_match(examples, loaded.tokenizer):
        examples = []
    answers = None
    if examples:
        answers = answer_all(
            loaded.model,
            loaded.tokenizer,
            examples,
            lambda done, total: on_progress("answers", done, total),
            shared=shared,
        )
    return Measured(split, loss, answers)


def _split(
    config: RunConfig, loaded: LoadedModel, split: str | None, cache_dir: Path | None
) -> tuple[str, Rows]:
    options = DataOptions.of_run(config, max_positions=max_positions(loaded.config), cache_dir=cache_dir)
    dataset = load_dataset(config.hf_dataset or config.data, loaded.tokenizer, options)
    wanted = [split] if split else ["test", "valid"]
    for name in wanted:
        if name in dataset.splits:
            return name, dataset.splits[name]
    raise DataError(
        f"{config.data} has no rows for {' or '.join(wanted)}; there are {', '.join(dataset.splits)}. Choose with --split."
    )
