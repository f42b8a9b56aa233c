"""Other trainers next to ours: the same rows, model, LoRA layers, batch size and number of updates, in alternation.

    pip install mlx-lm-lora                       # what is not installed is skipped
    pip install --no-deps unsloth_zoo psutil      # Linux; on a Mac: pip install "unsloth_zoo[mlx]"
    python benchmarks/peers.py [--rounds 2] [--rows 48] [--data excel log-normal]

Each trainer has a process of its own, as Unsloth's replaces functions of MLX. All start from the same weights and score the
same targets, at the same constant rate, without clipping or decay. mlx-lm and mlx-lm-lora get the same batches as we do;
they pad alike. Unsloth's trainer makes its own batches, sorted by length, and corrects Adam's bias. A round before the
first one compiles kernels and is not counted. The losses are those of all training rows, by one evaluator.
"""

# ruff: noqa: E402  the BLAS comes before mlx

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from mlxsched.platform.blas import preload

preload()

import mlx.core as mx
import numpy as np

from mlxsched.bench import ours, theirs
from mlxsched.bench.compare import shortened
from mlxsched.bench.measured import LoopCost, Moment, PeakMemory
from mlxsched.bench.synthetic import picked_rows, synthetic_dataset
from mlxsched.config import load_config
from mlxsched.model.load import load_model
from mlxsched.model.trees import flatten, unflatten
from mlxsched.training.session import Session, prepare

BATCH = 4
FLAGS = {"batch_size": BATCH, "num_layers": 2, "learning_rate": 1e-4}
EPOCHS = 2
OURS = "mlxsched"


def mlx_lm_lora(
    model: Any, optimizer: Any, dataset: Any, *, args: Any, iterate_batches: Any, **rest: Any
) -> None:
    """mlx-lm-lora's SFT trainer, called with the arguments of mlx-lm's."""
    from mlx_lm_lora.trainer import sft_trainer

    arguments = sft_trainer.SFTTrainingArgs(
        batch_size=args.batch_size, iters=args.iters, steps_per_report=args.steps_per_report,
        steps_per_save=args.steps_per_save, max_seq_length=args.max_seq_length, adapter_file=args.adapter_file,
    )  # fmt: skip
    source: Iterator[Any] | None = None

    def batches(train: bool, **settings: Any) -> Iterator[Any]:
        nonlocal source  # the trainer asks for a new iterator for each update, and takes its first batch
        source = source or iterate_batches(loop=train, **settings)
        return source

    with _metal_limit(), contextlib.redirect_stderr(io.StringIO()):
        sft_trainer.train_sft(model, optimizer, dataset, args=arguments, iterate_batches=batches, **rest)


@contextlib.contextmanager
def _metal_limit() -> Iterator[None]:
    """The key of `mx.device_info` that the trainer reads: a CPU lacks it, so the trainer raises a KeyError there."""
    info, key = mx.device_info, "max_recommended_working_set_size"
    mx.device_info = lambda *device: {key: 0, **info(*device)}
    try:
        yield
    finally:
        mx.device_info = info


def unsloth(session: Session) -> LoopCost:
    """Unsloth's MLX trainer, without the checkpointing that is on by default."""
    os.environ["UNSLOTH_ZOO_DISABLE_GPU_INIT"] = "1"  # outside macOS its import asks for PyTorch
    from transformers import TrainerCallback
    from unsloth_zoo.mlx.trainer import MLXTrainer, MLXTrainingConfig

    begun, ended, losses = list[Moment](), list[Moment](), list[float]()

    class Watch(TrainerCallback):
        def on_epoch_begin(self, *state: object, **rest: object) -> None:
            begun.append(Moment.now())

        def on_epoch_end(self, *state: object, **rest: object) -> None:
            ended.append(Moment.now())

    started, peak, per_epoch = Moment.now(), PeakMemory(), session.plan.updates_per_epoch
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = MLXTrainingConfig(
            per_device_train_batch_size=BATCH, gradient_accumulation_steps=1, max_steps=EPOCHS * per_epoch,
            warmup_steps=0, learning_rate=session.config.learning_rate, lr_scheduler_type="constant", optim="adam",
            weight_decay=0.0, max_grad_leaf_norm=0.0, gradient_checkpointing=False, logging_steps=per_epoch,
            output_dir=folder,
        )  # fmt: skip
        model, tokenizer = session.loaded.model, session.loaded.tokenizer
        trainer = MLXTrainer(model, tokenizer, _labelled(session), args=arguments, callbacks=[Watch()])
        trainer.add_step_callback(lambda step, total, loss, *rest: losses.append(loss))
        trainer.train()
    seconds = [end.since(begin) for begin, end in zip(begun, ended, strict=True)]
    wall = ended[0].wall - begun[0].wall
    return LoopCost(seconds, wall, begun[0].since(started), losses[:1], peak(), start_peak=0, padded=0)


def _labelled(session: Session) -> list[dict[str, list[int]]]:
    rows = session.train_rows
    return [
        {"input_ids": row.tokens.tolist(), "labels": np.where(row.targets, row.tokens, -100).tolist()}
        for row in (rows[index] for index in range(len(rows)))
    ]


def _in_our_order(session: Session, loop: theirs.Loop | None = None) -> LoopCost:
    return theirs.train(session, ours.order_of_epoch(session), EPOCHS, loop)


TRAINERS: dict[str, Callable[[Session], LoopCost]] = {
    OURS: lambda session: ours.train(session, theirs.reported(session)),
    "mlx-lm": _in_our_order,
    "mlx-lm-lora": lambda session: _in_our_order(session, mlx_lm_lora),
    "unsloth_zoo": unsloth,
}
INSTALL = {
    "mlx-lm-lora": "pip install mlx-lm-lora",
    "unsloth_zoo": "pip install --no-deps unsloth_zoo psutil",
}


def seen_in_an_epoch(rows: int, times: int = 20) -> float:
    """The share of the rows that an epoch's updates of mlx-lm-lora contain, with its own batches."""
    from mlx_lm_lora.trainer.sft_trainer import iterate_batches

    data, shares = [[index, 0, 0] for index in range(rows)], []
    for _ in range(times):
        seen = set[int]()
        for _ in range(rows // BATCH):
            batch, _spans = next(iterate_batches(data, BATCH, 2048, train=True))  # as `train_sft` does
            seen.update(np.array(batch)[:, 0].tolist())
        shares.append(len(seen) / rows)
    return statistics.fmean(shares)


@functools.cache
def session_of(data: str, count: int) -> Session:
    """Two epochs of the bundled model over ``count`` rows of the bundled data, or of random tokens."""
    loaded = load_config(flags=FLAGS)
    dataset = synthetic_dataset("synthetic:lognormal", count) if data == "log-normal" else None
    session = prepare(loaded.config, loaded.origins, loaded=load_model("tiny"), dataset=dataset)
    return shortened(session, picked_rows(session.train_rows, count))


@dataclass(frozen=True)
class Trained:
    """The cost of a training, and the losses of the training rows before and after it."""

    cost: LoopCost
    before: float
    after: float


def train(name: str, data: str, count: int) -> Trained:
    """Train with one of `TRAINERS`, from the initial weights."""
    session = session_of(data, count)
    model = session.loaded.model
    initial = flatten(model.trainable_parameters())
    before = ours.evaluate(session, times=1)[1]
    found = Trained(TRAINERS[name](session), before, ours.evaluate(session, times=1)[1])
    model.update(unflatten(initial))
    return found


def measure(
    pools: dict[str, ProcessPoolExecutor], data: str, rows: int, rounds: int
) -> dict[str, list[Trained]]:
    """Train with each trainer in turn, ``rounds`` times and once before."""
    found: dict[str, list[Trained]] = {name: [] for name in pools}
    for number in range(rounds + 1):
        for name in list(pools)[:: 1 if number % 2 else -1]:
            print(f"  {data}, round {number}/{rounds}: {name}", file=sys.stderr, flush=True)
            trained = pools[name].submit(train, name, data, rows).result()
            found[name] += [trained] if number else []
    return found


def line(data: str, name: str, found: dict[str, list[Trained]]) -> str:
    """A row of the table: times and peak as ratios to ours, in the median round."""
    pairs = [(peer.cost, mine.cost) for peer, mine in zip(found[name], found[OURS], strict=True)]

    def ratio(of: Callable[[LoopCost], float]) -> str:
        ratios = [of(peer) / of(mine) for peer, mine in pairs]
        return f"**{statistics.median(ratios):.2f}x** ({min(ratios):.2f} to {max(ratios):.2f})"

    last, (peer, mine) = found[name][-1], pairs[0]
    apart = "other batches"
    if name != "unsloth_zoo":
        apart = f"{max(abs(a - b) / b for a, b in zip(peer.losses, mine.losses, strict=True)):.0e}"
    return " | ".join([
        f"| {data}", f"{name} {version(name)}", *(ratio(lambda cost, n=n: cost.epochs[n]) for n in range(EPOCHS)),
        f"{statistics.median(peer.peak / mine.peak for peer, mine in pairs):.2f}x",
        apart, f"{last.before:.4f} to {last.after:.4f} |",
    ])  # fmt: skip


def main() -> None:
    """Print the table, and how many rows mlx-lm-lora trains on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rows", type=int, default=48)
    parser.add_argument("--data", nargs="+", choices=("excel", "log-normal"), default=["excel", "log-normal"])
    options = parser.parse_args()
    installed = [name for name in TRAINERS if find_spec(name.replace("-", "_"))]
    for name in TRAINERS.keys() - set(installed):
        print(f"{name} is not installed and is skipped. To include it: {INSTALL[name]}", file=sys.stderr)
    columns = (
        "rows",
        "trainer",
        "first epoch",
        "second epoch",
        "peak above the weights",
        "losses differ by",
        "loss",
    )
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|")
    with contextlib.ExitStack() as stack:
        spawn = multiprocessing.get_context("spawn")
        pools = {name: stack.enter_context(ProcessPoolExecutor(1, spawn)) for name in installed}
        for data in options.data:
            found = measure(pools, data, options.rows, options.rounds)
            print("\n".join(line(data, name, found) for name in found), flush=True)
    if "mlx-lm-lora" in installed:
        share = seen_in_an_epoch(options.rows)
        print(f"\nmlx-lm-lora's own batches: {share:.0%} of {options.rows} rows in an epoch's updates")


if __name__ == "__main__":
    main()
