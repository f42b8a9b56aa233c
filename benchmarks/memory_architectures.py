"""Predicted and measured peaks of runs on tiny random models of other architectures, without and with a limit.

    python benchmarks/memory_architectures.py             # all architectures below, built by `benchmarks/tiny_models.py`
    python benchmarks/memory_architectures.py mixtral     # selected ones

Each line shows a run of 2 updates: the peak in its memory plan and `mx.get_peak_memory`, self-check and planning
included, then the same with --memory at 70% of that peak.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from mlxsched.platform import blas

blas.preload()

import mlx.core as mx  # noqa: E402  after the BLAS
import numpy as np  # noqa: E402
import tiny_models  # noqa: E402
from mlx_lm.utils import save_model  # noqa: E402

from mlxsched.bundled import model_path  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.errors import UserError  # noqa: E402
from mlxsched.training.run import create_run, execute  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

KINDS = [
    "qwen3_next", "gpt_oss", "deepseek_v3", "mixtral", "gemma3_text", "qwen3_moe", "olmoe", "falcon_h1",
    "olmo2", "exaone4", "gemma2", "cohere2", "phi3", "gpt2", "deepseek_v2", "lfm2", "minicpm3", "glm4_moe",
    "bailing_moe",
]  # fmt: skip
WIDTHS = {"hidden_size": 128, "d_model": 128, "n_embd": 128, "hidden_dim": 128, "intermediate_size": 256}


def save(kind: str, folder: Path) -> None:
    """Save a random model with the bundled tokenizer."""
    tokenizer = model_path("tiny")
    vocabulary = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    tiny_models.SIZES.update(
        WIDTHS, vocab_size=vocabulary, max_position_embeddings=512, n_positions=512, n_ctx=512
    )
    model, config = tiny_models.bare(kind)
    folder.mkdir()
    save_model(folder, model, donate_model=False)
    (folder / "config.json").write_text(json.dumps(config))
    for file in tokenizer.glob("*token*"):
        shutil.copy(file, folder)


def write_rows(folder: Path) -> None:
    """Rows of one length, so that every micro-batch has the largest shape of the plan."""
    draw = np.random.default_rng(0)
    folder.mkdir()
    lines = ["".join(row) for row in draw.choice(list("0123456789"), (48, 62))]
    (folder / "train.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))


def peaks(folder: Path, name: str, **flags: Any) -> tuple[float, float] | str:
    """What the plan of a run said and what MLX measured, in bytes; or why there was no run."""
    settings = {"iters": 2, "batch_size": 16, "val_batches": 0, "test": False, "prefix_cache": 0, **flags}
    settings |= {"model": str(folder / "model"), "data": str(folder / "data")}
    loaded = load_config(flags=settings)
    try:
        session = prepare(loaded.config, loaded.origins)
    except UserError as error:
        return str(error).split(".")[0][:90]
    execute(session, create_run(session, folder / name), lambda event: None)
    return session.memory.peak, mx.get_peak_memory()


def main() -> None:
    """Print the table."""
    print("| architecture | planned | measured | off | limit | measured | of the limit |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for kind in sys.argv[1:] or KINDS:
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            save(kind, folder / "model")
            write_rows(folder / "data")
            free = peaks(folder, "free")
            if isinstance(free, str):
                print(f"| {kind} | {free} | | | | | |", flush=True)
                continue
            cells = [f"{value / 1e6:.1f} MB" for value in free] + [f"{free[0] / free[1] - 1:+.1%}"]
            limit = int(0.7 * free[1])
            tight = peaks(folder, "tight", memory=limit)
            cells += [f"{limit / 1e6:.1f} MB"]
            cells += (
                [tight, ""]
                if isinstance(tight, str)
                else [f"{tight[1] / 1e6:.1f} MB", f"{tight[1] / limit:.0%}"]
            )
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    mx.random.seed(0)
    main()
