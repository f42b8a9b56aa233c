"""Predicted and measured peaks of runs on tiny random models of other architectures, without and with a limit.

    python benchmarks/memory_architectures.py             # all below, built by `benchmarks/tiny_models.py`
    python benchmarks/memory_architectures.py mixtral     # selected ones

Each architecture is trained for 3 updates of 16 rows of mixed lengths, or of one length with --even. A line shows the
peak in the memory plan and `mx.get_peak_memory` of the run, self-check and planning included, then the same with
--memory at 70% of that peak.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from mlxsched.platform import blas

blas.preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402
import tiny_models  # noqa: E402

from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.data import Dataset  # noqa: E402
from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.errors import UserError  # noqa: E402
from mlxsched.training.run import create_run, execute  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

KINDS = [
    "qwen3_next", "gpt_oss", "deepseek_v3", "mamba2", "mixtral", "gemma3_text", "qwen3_moe", "olmoe", "falcon_h1",
    "granitemoehybrid", "nemotron_h", "olmo2", "exaone4", "gemma2", "cohere2", "phi3", "gpt2", "deepseek_v2", "lfm2",
    "minicpm3", "glm4_moe", "bailing_moe", "rwkv7", "llama --fine-tune-type dora", "mixtral --fine-tune-type dora",
    "gemma3_text --fine-tune-type full",
]  # fmt: skip
# Wide enough that activations outweigh the adapter. Some settings depend on the width.
WIDTHS = {"hidden_size": 128, "d_model": 128, "n_embd": 128, "hidden_dim": 128, "intermediate_size": 256}
POSITIONS = dict.fromkeys(["max_position_embeddings", "n_positions", "n_ctx"], 512)
FOLLOWING = {
    "cohere2": {"head_dim": 32},
    "granitemoehybrid": {"mamba_d_head": 64},
    "lfm2": {"block_dim": 128, "block_ff_dim": 256},
}
VOCABULARY = 1300
LENGTHS = LogNormal(median=48, p95=160, shortest=8, longest=250)


def even_rows(count: int, length: int) -> Rows:
    """Rows of one length, so that every micro-batch has the largest shape of the plan; every token is a target."""
    draw, targets = np.random.default_rng(0), np.arange(length) > 0
    return rows_in_memory(
        (draw.integers(0, VOCABULARY, length, dtype=np.int32), targets) for _ in range(count)
    )


def peaks(kind: str, rows: Rows, **flags: Any) -> tuple[float, float] | str:
    """What the plan of a run said and what MLX measured, in bytes; or why there was no run."""
    name, _, fine_tune_type = kind.partition(" --fine-tune-type ")
    settings = {"iters": 3, "batch_size": 16, "val_batches": 0, "test": False, "prefix_cache": 0, **flags}
    if fine_tune_type:
        settings["fine_tune_type"] = fine_tune_type
    loaded = load_config(flags=settings)
    model = tiny_models.loaded(name)
    mx.reset_peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        try:
            session = prepare(
                loaded.config, loaded.origins, loaded=model, dataset=Dataset({"train": rows}, "random")
            )
        except UserError as error:
            return str(error).split(".")[0][:90]
        execute(session, create_run(session, Path(folder) / "run"), lambda event: None)
        return session.memory.peak, mx.get_peak_memory()


def cells_of(kind: str, rows: Rows) -> tuple[list[str], float, float]:
    """The cells of a line, how far off the plan was, and the measured share of the limit (0 for no run)."""
    free = peaks(kind, rows)
    if isinstance(free, str):
        return [kind, free, "", "", "", "", ""], 0.0, 0.0
    off, limit = free[0] / free[1] - 1, int(0.7 * free[1])
    cells = [kind, *(f"{value / 1e6:.1f} MB" for value in free), f"{off:+.1%}", f"{limit / 1e6:.1f} MB"]
    tight = peaks(kind, rows, memory=limit)
    if isinstance(tight, str):
        return [*cells, tight, ""], off, 0.0
    return [*cells, f"{tight[1] / 1e6:.1f} MB", f"{tight[1] / limit:.0%}"], off, tight[1] / limit


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=KINDS, metavar="architecture")
    parser.add_argument("--even", action="store_true", help="rows of one length")
    arguments = parser.parse_args()
    tiny_models.SIZES.update(WIDTHS | POSITIONS, vocab_size=VOCABULARY)
    for kind, more in FOLLOWING.items():
        tiny_models.SPECIAL[kind] = {**tiny_models.SPECIAL.get(kind, {}), **more}
    rows = even_rows(48, 62) if arguments.even else lognormal_rows(48, LENGTHS)
    print("| architecture | planned | measured | off | limit | measured | of the limit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    offs, shares = [], []
    for kind in arguments.kinds:
        cells, off, share = cells_of(kind, rows)
        print(f"| {' | '.join(cells)} |", flush=True)
        offs.append(abs(off))
        shares.append(share)
    print(f"\nOff by at most {max(offs):.1%}; at most {max(shares):.0%} of the limit.")


if __name__ == "__main__":
    main()
