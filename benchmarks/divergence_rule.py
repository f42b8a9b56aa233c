"""How well the divergence test works: it should never stop a healthy run, and soon stop one that diverges.

Trains the bundled model many times, in memory, with random settings. Healthy runs use the usual rates of LoRA, every
optimizer, batch sizes from 1 to 8 (smaller ones are noisier, which is what could raise a false alarm), with and without LoRA+ and warmup. Diverging runs use rates of 0.1 and above, and
no clipping. Prints how many of each were stopped, and after how many updates.

    python benchmarks/divergence_rule.py --healthy 200 --diverging 40
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from typing import Any

from mlxsched.platform.blas import preload

preload()

from mlxsched.config import load_config  # noqa: E402  after the BLAS
from mlxsched.data import Dataset  # noqa: E402
from mlxsched.errors import DivergedError  # noqa: E402
from mlxsched.model.load import LoadedModel, load_model  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import (  # noqa: E402
    make_engine,
    make_evaluator,
    make_loader,
    make_pace,
    uniform_loss,
)
from mlxsched.training.loop import Loop  # noqa: E402
from mlxsched.training.policies.divergence import Divergence, NonFinite  # noqa: E402
from mlxsched.training.policies.evaluation import Evaluation  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

UPDATES = (12, 50)


def healthy(draw: random.Random) -> dict[str, Any]:
    """Settings as people use them.

    The rates are those that reach the weights: Adam without bias correction takes steps up to 6.6 times as large as the
    schedule says, and LoRA+ moves B at a multiple of it.
    """
    optimizer = draw.choice(["adamw", "adamw", "adam", "lion", "adafactor", "sgd"])
    corrected, plus = draw.choice([True, True, False]), draw.choice([1.0, 1.0, 4.0])
    rate = 10 ** draw.uniform(-5, -2.7) * {"lion": 0.1, "sgd": 10.0}.get(optimizer, 1.0)
    return {
        "optimizer": optimizer,
        "learning_rate": rate / plus / (1.0 if corrected else 6.6),
        "schedule": draw.choice(["linear", "cosine", "constant", "wsd", "one_cycle"]),
        "batch_size": draw.choice([1, 1, 2, 4, 8]),
        "warmup": draw.choice([0, 0.1]),
        "lora_plus_ratio": plus,
        "bias_correction": corrected,
        "max_grad_norm": draw.choice([1.0, 0.0]) if optimizer != "sgd" else 1.0,
        "lora_parameters.rank": draw.choice([4, 8, 32]),
        "label_smoothing": draw.choice([0.0, 0.0, 0.1]),
    }


def diverging(draw: random.Random) -> dict[str, Any]:
    """Settings that leave nothing of what the model knew."""
    rate = 10 ** draw.uniform(-1, 0.7)
    return {"learning_rate": rate, "schedule": "constant", "warmup": 0, "max_grad_norm": 0.0, "batch_size": 4}


def stopped_after(settings: dict[str, Any], seed: int, updates: int, shared: Shared) -> int | None:
    """The update at which the run was stopped, or None; 0 stands for its end."""
    # Without optimizations, which give the same losses: their self-check takes longer than such a short run.
    flags = {"seed": seed, "iters": updates, "val_batches": 4, "test": False, "fast": False, **settings}
    loaded = load_config(flags=flags)
    made = prepare(loaded.config, loaded.origins, loaded=shared.model, dataset=shared.dataset)
    paths, pace = accelerate(made, None, lambda text: None), make_pace(made)
    loop = Loop(
        make_engine(made, paths.training),
        make_loader(made, paths.training, pace),
        pace,
        lambda event: None,
        evaluator=make_evaluator(made, paths.validation),
    )
    loop.policies = [
        Evaluation(max(updates // 3, 1)),
        NonFinite(5, False, lambda update: "", ""),
        Divergence(uniform_loss(made), False, ""),
    ]
    try:
        loop.run()
    except DivergedError:
        return loop.progress.update if not loop.done else 0
    finally:
        loop.engine.load_into_model()
    return None


class Shared:
    """Model and rows, loaded once: `prepare` attaches a fresh adapter each time."""

    def __init__(self) -> None:
        loaded = load_config(flags={"iters": 1})
        self.model: LoadedModel = load_model("tiny")
        self.dataset: Dataset = prepare(loaded.config, loaded.origins, loaded=self.model).dataset


def main() -> None:
    """Print how many runs were stopped."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--healthy", type=int, default=200)
    parser.add_argument("--diverging", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    draw, shared = random.Random(arguments.seed), Shared()
    for kind, count, settings_of in (
        ("healthy", arguments.healthy, healthy),
        ("diverging", arguments.diverging, diverging),
    ):
        stopped: list[int] = []
        for seed in range(count):
            settings, updates = settings_of(draw), draw.randint(*UPDATES)
            after = stopped_after(settings, seed, updates, shared)
            if seed % 20 == 19:
                print(f"{kind}: {seed + 1}/{count} runs, {len(stopped)} stopped", file=sys.stderr, flush=True)
            if after is not None:
                stopped.append(after)
                if kind == "healthy":
                    print(f"stopped: seed {seed}, {updates} updates, {settings}")
        middle = f", median update {statistics.median(stopped):g}" if stopped else ""
        print(f"{kind}: {len(stopped)} of {count} stopped{middle}")


if __name__ == "__main__":
    main()
