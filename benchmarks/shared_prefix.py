"""Shared prompts (`--share-prompts`) compared with whole rows (`--no-share-prompts`): the same rows from the same weights.

    python benchmarks/shared_prefix.py [CASE ...]     numbers of cases, from 0; default: all

First the loss and gradients of an update are compared, with LoRA's B away from zero: the script fails if
they differ by more than 1e-5. Then both make that update in turn, after one that compiles; speed is the median of the rounds'
ratios of CPU time. Peaks are above what is in memory between updates.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import statistics  # noqa: E402  after the BLAS
import sys  # noqa: E402
import time  # noqa: E402
from typing import NamedTuple  # noqa: E402

import interleaved  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from interleaved import _session  # noqa: E402

from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.model.trees import flatten, unflatten  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine, make_loader, make_pace  # noqa: E402

LLAMA_17M = {
    "hidden_size": 384, "num_hidden_layers": 8, "intermediate_size": 1024, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 8192,
}  # fmt: skip


class Case(NamedTuple):
    """``shared`` tokens that all rows begin with, before a median of ``own``; 99 ``layers`` stand for all of them."""

    model: str
    shared: int
    own: int
    per_update: int
    rounds: int
    layers: int = 99


CASES = (
    Case("bundled", 512, 60, 16, 15),
    Case("bundled", 31, 110, 32, 15),  # like Apple's WWDC questions under a system prompt: 31 of 141
    Case("bundled", 0, 100, 16, 15),
    Case("Llama, 17M", 512, 60, 16, 3),
    Case("Llama, 17M", 31, 110, 16, 3),
    Case("bundled", 512, 60, 16, 15, layers=2),
)


def rows_of(case: Case) -> Rows:
    """Random rows, log-normal behind the shared tokens; the second half of what is their own are targets."""
    generator = np.random.default_rng(0)
    begin = generator.integers(1, 256, case.shared)
    rows = []
    for number in np.exp(generator.normal(np.log(case.own), 0.6, case.per_update)).round():
        own = generator.integers(1, 256, int(np.clip(number, 8, 512)))
        tokens = np.concatenate([begin, own]).astype(np.int32)
        rows.append((tokens, np.arange(len(tokens)) >= case.shared + len(own) // 2))
    return rows_in_memory(rows)


class Side:
    """The first update of a session, to be made again and again."""

    def __init__(self, case: Case, rows: Rows, share: bool | None) -> None:
        flags = {"batch_size": case.per_update, "num_layers": case.layers, "packing": False}
        flags |= {"max_seq_length": 4096, "prefix_cache": 0}
        self.session = _session(case.model, rows, {**flags, "share_prompts": share})
        path = accelerate(self.session, None, lambda note: print(f"  {note}", file=sys.stderr)).training
        model = self.session.loaded.model
        stirred = {  # LoRA's B starts at 0, which would hide errors in A's gradient
            name: value + 0.01 * mx.random.normal(value.shape, key=mx.random.key(3))
            for name, value in flatten(model.trainable_parameters()).items()
        }
        model.update(unflatten(stirred))
        self.engine = make_engine(self.session, path)
        self.batches = make_loader(self.session, path, make_pace(self.session))(0)
        self.sums = self.engine._sums(self.batches)  # compiles
        mx.eval(self.sums)
        self.seconds: list[float] = []
        self.peak = 0.0

    def run(self) -> None:
        """Time an update."""
        mx.synchronize()
        base, start = mx.get_active_memory(), time.process_time()
        mx.reset_peak_memory()
        self.engine.update(self.batches, 1e-4).wait()
        mx.synchronize()
        self.seconds.append(time.process_time() - start)
        self.peak = max(self.peak, (mx.get_peak_memory() - base) / 1e6)


def agreement(shared: Side, whole: Side) -> tuple[float, float]:
    """The relative differences of the loss and of the gradients."""
    (loss, got), (expected_loss, expected) = shared.sums, whole.sums
    pairs = zip(flatten(got).values(), flatten(expected).values(), strict=True)
    parts = [(float(mx.square(a - b).sum()), float(mx.square(b).sum())) for a, b in pairs]
    apart, norm = (sum(column) for column in zip(*parts, strict=True))
    return abs(float(loss) - float(expected_loss)) / abs(float(expected_loss)), (apart / norm) ** 0.5


def line(case: Case) -> str:
    """A row of the table."""
    rows = rows_of(case)
    shared, whole = Side(case, rows, None), Side(case, rows, False)
    off = agreement(shared, whole)
    if max(off) > 1e-5:
        raise SystemExit(f"{case}: loss differs by {off[0]:.0e}, gradients by {off[1]:.0e}")
    for number in range(case.rounds):
        for side in (shared, whole)[:: 1 if number % 2 else -1]:
            side.run()
    ratios = [b / a for a, b in zip(shared.seconds, whole.seconds, strict=True)]
    sharing = shared.session.batching.sharing
    saved = f"{', '.join(map(str, sharing.lengths))}: {sharing.saved:.0%}" if sharing else "nothing"
    return (
        f"| {case.model} | {'all' if case.layers == 99 else case.layers} | {case.shared} + {case.own} | {case.per_update} | {saved} | **{statistics.median(ratios):.2f}x** "
        f"({min(ratios):.2f} to {max(ratios):.2f}) | {shared.peak:.0f} / {whole.peak:.0f} MB | {off[0]:.0e} | {off[1]:.0e} |"
    )


def main() -> None:
    """Print the table."""
    interleaved.LLAMA.update(LLAMA_17M)
    print(
        "| model | trained layers | shared + own tokens | rows per update | plan | speed | peak, shared / whole | loss differs by "
        "| gradients differ by |\n| --- " + "| --- " * 8 + "|"
    )
    for number in map(int, sys.argv[1:] or range(len(CASES))):
        print(line(CASES[number]), flush=True)


if __name__ == "__main__":
    main()
