"""Padding and shapes of the micro-batches of an epoch, as a run plans them: counted, nothing is trained.

    python benchmarks/padding.py

"Tightest" pads each micro-batch to its longest row, which takes hundreds of shapes. A trace is a shape with a padded number
of targets: each is compiled once. "Chosen" is what a run takes by default where every row is read whole: packed lines where these cost less.
"""

from __future__ import annotations

import numpy as np

from mlxsched.bench.synthetic import LogNormal, lognormal_rows
from mlxsched.config import RunConfig
from mlxsched.data import DataOptions, load_dataset
from mlxsched.data.batching.grid import Grid, n_inputs
from mlxsched.data.batching.plan import BatchingPlan, batching_stats, packed_plan, padded_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.model.fast.forward_path import padded_targets
from mlxsched.model.load import load_model

CASES = (("excel", 4), ("excel", 8), ("excel", 32), ("log-normal", 4), ("log-normal", 16))
MAX_TOKENS = 1024


def rows_of(data: str) -> Rows:
    """The bundled rows with the bundled tokenizer, or 4,000 log-normal ones."""
    if data == "log-normal":
        return lognormal_rows(4000, LogNormal())
    config = RunConfig()
    train = load_dataset(config.data, load_model(config.model).tokenizer, DataOptions.of_run(config)).train
    assert train is not None  # noqa: S101
    return train


def traces(plan: BatchingPlan, rows: Rows, sampler: Sampler) -> int:
    """The graphs that an epoch compiles."""
    batches = [batch for update in sampler.samples(10**9) for batch in plan.batches(rows, update)]
    return len({(batch.shape, padded_targets(batch.n_targets, batch.weights.size)) for batch in batches})


def main() -> None:
    """Print the table."""
    print(
        "| rows | per update | padding, tightest | padded | shapes | traces | micro-batches | chosen | padding | shapes |\n"
        + "| --- " * 10
        + "|"
    )
    for data, per_update in CASES:
        rows = rows_of(data)
        sampler = Sampler(rows.lengths, per_update)
        tight = BatchingPlan(MAX_TOKENS, Grid(tuple(np.unique(n_inputs(rows.lengths)).tolist())))
        padded = padded_plan(sampler, MAX_TOKENS)
        chosen = packed_plan(padded, sampler) or padded
        stats = [batching_stats(plan, sampler, 10**9) for plan in (tight, padded, chosen)]
        least, today, taken = stats
        print(
            f"| {data} | {per_update} | {least.padding:.1%} | {today.padding:.1%} | {len(set(today.shapes))} "
            f"| {traces(padded, rows, sampler)} | {today.per_update:.2f} | {'packed' if chosen.packing else 'padded'} "
            f"| {taken.padding:.1%} | {len(set(taken.shapes))} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
