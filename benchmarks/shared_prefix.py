"""Shared prompts (`--share-prompts`) compared with whole rows (`--no-share-prompts`): the same rows from the same weights.

    python benchmarks/shared_prefix.py [CASE ...]     numbers of cases, from 0; default: all

All layers are trained. First the loss and gradients of an update are compared, with LoRA's B away from zero: the script fails if
they differ by more than 1e-5. Then both train two epochs in turn; times are CPU time of the second epoch (the first one
compiles), the median of the rounds' ratios. Peaks are above the weights.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import statistics  # noqa: E402  after the BLAS
import sys  # noqa: E402
from typing import NamedTuple  # noqa: E402

import interleaved as sides_of  # noqa: E402
import mlx.core as mx  # noqa: E402
import numpy as np  # noqa: E402
from interleaved import Side, interleaved  # noqa: E402

from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.model.trees import flatten, unflatten  # noqa: E402
from mlxsched.training.acceleration import accelerate  # noqa: E402
from mlxsched.training.assembly import make_engine, make_loader, make_pace  # noqa: E402
from mlxsched.training.session import Session  # noqa: E402

LLAMA_17M = {
    "hidden_size": 384, "num_hidden_layers": 8, "intermediate_size": 1024, "num_attention_heads": 6,
    "num_key_value_heads": 2, "vocab_size": 8192,
}  # fmt: skip


class Case(NamedTuple):
    """``shared`` tokens that all rows begin with, in front of a median of ``own``."""

    model: str
    shared: int
    own: int
    per_update: int
    updates: int
    rounds: int


CASES = (
    Case("bundled", 512, 60, 16, 2, 3),
    Case("bundled", 31, 110, 32, 4, 5),  # like Apple's WWDC questions under a system prompt: 31 of 141
    Case("bundled", 0, 100, 16, 8, 5),
    Case("Llama, 17M", 512, 60, 16, 1, 2),
    Case("Llama, 17M", 31, 110, 16, 1, 3),
)


def rows_of(case: Case) -> Rows:
    """Random rows, log-normal behind the shared tokens; the second half of what is their own are targets."""
    generator = np.random.default_rng(0)
    begin = generator.integers(1, 256, case.shared)
    rows = []
    for number in np.exp(generator.normal(np.log(case.own), 0.6, case.per_update * case.updates)).round():
        own = generator.integers(1, 256, int(np.clip(number, 8, 512)))
        tokens = np.concatenate([begin, own]).astype(np.int32)
        rows.append((tokens, np.arange(len(tokens)) >= case.shared + len(own) // 2))
    return rows_in_memory(rows)


def gradients_of(session: Session) -> tuple[float, list[mx.array]]:
    """Loss and gradients of the first update, the adapter away from where it starts."""
    model = session.loaded.model
    initial = flatten(model.trainable_parameters())
    stirred = {
        name: value + 0.01 * mx.random.normal(value.shape, key=mx.random.key(3))
        for name, value in initial.items()
    }
    model.update(unflatten(stirred))
    path = accelerate(session, None, lambda note: print(f"  {note}", file=sys.stderr)).training
    engine = make_engine(session, path)
    loss, packed = engine._sums(make_loader(session, path, make_pace(session))(0))
    found = list(flatten(packed).values())
    mx.eval(loss, found)
    model.update(unflatten(initial))
    return loss.item(), found


def agreement(shared: Session, whole: Session) -> tuple[float, float]:
    """The relative differences of the loss and of the gradients."""
    (loss, got), (expected_loss, expected) = gradients_of(shared), gradients_of(whole)
    apart = sum(float(mx.square(a - b).sum()) for a, b in zip(got, expected, strict=True))
    norm = sum(float(mx.square(b).sum()) for b in expected)
    return abs(loss - expected_loss) / abs(expected_loss), (apart / norm) ** 0.5


def line(case: Case, shared: Side, whole: Side) -> str:
    """A row of the table."""
    off = agreement(shared.session, whole.session)
    if max(off) > 1e-5:
        raise SystemExit(f"{case}: loss differs by {off[0]:.0e}, gradients by {off[1]:.0e}")
    sharing = shared.session.batching.sharing
    peaks = [statistics.median(r.peak for r in side.rounds) / 1e6 for side in (shared, whole)]
    ratio, low, high = shared.over(whole, 1)
    saved = f"{sharing.lengths}: {sharing.saved:.0%}" if sharing else "nothing"
    return (
        f"| {case.model} | {case.shared} + {case.own} | {case.per_update} | {saved} | **{ratio:.2f}x** ({low:.2f} to {high:.2f}) "
        f"| {peaks[0]:.0f} / {peaks[1]:.0f} MB | {off[0]:.0e} | {off[1]:.0e} | {shared.peak_off:+.0%} |"
    )


def main() -> None:
    """Print the table."""
    sides_of.LLAMA.update(LLAMA_17M)
    print(
        "| model | shared + own tokens | rows per update | plan | speed | peak, shared / whole | loss differs by "
        "| gradients differ by | predicted peak |\n| --- " + "| --- " * 8 + "|"
    )
    for number in map(int, sys.argv[1:] or range(len(CASES))):
        case = CASES[number]
        common = {"batch_size": case.per_update, "num_layers": 99, "packing": False, "max_seq_length": 4096}
        settings = {"shared": {}, "whole": {"share_prompts": False}}
        sides = interleaved(case.model, rows_of(case), case.rounds, common, settings)
        print(line(case, sides["shared"], sides["whole"]), flush=True)


if __name__ == "__main__":
    main()
