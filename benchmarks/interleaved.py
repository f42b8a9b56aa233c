"""Compares settings of our own loop: the same rows from the same weights, alternating, in one process."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.bench import ours
from mlxsched.bench.compare import shortened
from mlxsched.bench.measured import LoopCost
from mlxsched.bench.shapes import config_of, random_model
from mlxsched.config import load_config
from mlxsched.data import Dataset
from mlxsched.data.batching.plan import BatchingStats, batching_stats
from mlxsched.data.rows import Rows
from mlxsched.model.load import LoadedModel, load_model
from mlxsched.model.trees import flatten, unflatten
from mlxsched.training.session import Session, prepare

LLAMA = {
    "hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 704, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": 16384,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """The results of one setting: its session and a measurement for each round."""

    session: Session
    rounds: list[LoopCost]

    def over(self, other: Side, epoch: int) -> tuple[float, float, float]:
        """The other side's time divided by this side's: the median of the rounds, the lowest and the highest."""
        ratios = [b.epochs[epoch] / a.epochs[epoch] for a, b in zip(self.rounds, other.rounds, strict=True)]
        return statistics.median(ratios), min(ratios), max(ratios)

    @property
    def sampled(self) -> BatchingStats:
        """Micro-batches and padding of the first epoch's updates."""
        session = self.session
        return batching_stats(
            session.batching, session.sampler, session.plan.updates_per_epoch, session.train_rows
        )

    @property
    def peak_off(self) -> float:
        """The predicted peak above the weights divided by the measured one, minus 1."""
        peak = statistics.median(measured.peak for measured in self.rounds)
        return self.session.memory.above_weights / peak - 1


def model_of(name: str) -> LoadedModel:
    """The bundled model, or a random Llama with 5M parameters in the layers and 4M in the vocabulary."""
    if name == "bundled":
        return load_model("tiny")
    config = config_of("llama-135m", **LLAMA)
    return LoadedModel(name, name, random_model(config), None, config)


def interleaved(
    model: str, rows: Rows, rounds: int, common: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Side]:
    """Train two epochs of ``rows`` with each of ``settings`` (which override ``common``), ``rounds`` times."""
    sides = {name: Side(_session(model, rows, {**common, **flags}), []) for name, flags in settings.items()}
    for number in range(rounds):
        for name, side in _turn(sides, number):
            print(f"  {model}: round {number + 1}/{rounds}, {name}", file=sys.stderr, flush=True)
            weights = side.session.loaded.model
            initial = flatten(weights.trainable_parameters())
            side.rounds.append(ours.train(side.session, 1, _note))
            weights.update(unflatten(initial))
    return sides


def _turn(sides: dict[str, Side], number: int) -> Iterator[tuple[str, Side]]:
    yield from list(sides.items())[:: 1 if number % 2 else -1]


def _session(model: str, rows: Rows, flags: Mapping[str, Any]) -> Session:
    loaded = load_config(flags={"learning_rate": 1e-4, **flags})
    dataset = Dataset({"train": rows}, "synthetic")
    session = prepare(loaded.config, loaded.origins, loaded=model_of(model), dataset=dataset)
    return shortened(session, rows)


def _note(note: str) -> None:
    print(f"  {note}", file=sys.stderr)
