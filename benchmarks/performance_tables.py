"""The tables of docs/performance.md: mlx-lm's loop and ours on the same rows, measured as `mlxsched bench` does.

    python benchmarks/performance_tables.py run tiny wikisql      # measure cases into docs/performance.json
    python benchmarks/performance_tables.py list
    python benchmarks/performance_tables.py write                 # update the tables in docs/performance.md

Times are CPU time (user and system) of this process; the CPU backend uses one thread.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlxsched.platform.blas import preload

preload()

import numpy as np  # noqa: E402
from presets_real_model import docstrings  # noqa: E402
from shared_prefix import LLAMA_17M  # noqa: E402
from wikisql import VOCABULARY, missing, wikisql_rows  # noqa: E402

from mlxsched.bench.compare import compare, shortened  # noqa: E402
from mlxsched.bench.shapes import config_of, random_model  # noqa: E402
from mlxsched.bench.synthetic import LogNormal, lognormal_rows  # noqa: E402
from mlxsched.config import load_config  # noqa: E402
from mlxsched.data import Dataset  # noqa: E402
from mlxsched.data.rows import Rows, rows_in_memory  # noqa: E402
from mlxsched.model.load import LoadedModel, load_model  # noqa: E402
from mlxsched.training.session import prepare  # noqa: E402

DOCS = Path(__file__).resolve().parent.parent / "docs"
RESULTS = DOCS / "performance.json"
DOCSTRINGS = "docstrings of Python's library"
LEAN = {"grad_checkpoint": True, "micro_batch_tokens": 256}


@dataclass(frozen=True)
class Case:
    """One row of a table. ``trained``: the number of trained layers, counted from the top; -1 for all."""

    title: str
    shape: str = "tiny"
    data: str = "log-normal"
    kind: str = "float32"
    changes: dict[str, Any] = field(default_factory=dict)
    flags: dict[str, Any] = field(default_factory=dict)
    trained: int = 2
    rows: int = 64
    rounds: int = 3
    median: float = 112
    longest: int = 2048

    @property
    def is_full(self) -> bool:
        """Whether all weights are trained."""
        return self.flags.get("fine_tune_type") == "full"


FULL = {"fine_tune_type": "full"}
SMALL = {
    "hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 352, "num_attention_heads": 4,
    "num_key_value_heads": 4, "vocab_size": VOCABULARY,
}  # fmt: skip
FEW = {"trained": 15, "rows": 4, "rounds": 3, "longest": 512}
FEW_LAYERS = {"num_hidden_layers": 2, "vocab_size": 8192}  # everything but float32 is slow on a CPU
CASES = {
    "tiny": Case("bundled (4 layers, 0.9M)"),
    "tiny-lean": Case("bundled, leanest", flags=LEAN),
    "tiny-all": Case("bundled, all layers trained", trained=-1),
    "tiny-full": Case("bundled (4 layers, 0.9M)", trained=-1, flags=FULL, rows=32, rounds=2),
    "tiny-full-long": Case(
        "bundled (4 layers, 0.9M)", "tiny", "log-normal, median 600", trained=-1, flags=FULL, rows=16, rounds=1, median=600
    ),
    "17m-full": Case("Llama, 17M", "llama-135m", changes=LLAMA_17M, trained=-1, flags=FULL, rows=16, rounds=1, longest=512),
    "wikisql": Case("4 layers of 128, GPT-2 vocabulary", "llama-135m", "WikiSQL", changes=SMALL, rows=20),
    "wikisql-lean": Case(
        "4 layers of 128, GPT-2 vocabulary, leanest", "llama-135m", "WikiSQL", changes=SMALL, rows=20, flags=LEAN
    ),
    "small": Case("4 layers of 128, GPT-2 vocabulary", "llama-135m", changes=SMALL, rows=16, rounds=3),
    "small-lean": Case("4 layers of 128, GPT-2 vocabulary, leanest", "llama-135m", changes=SMALL, rows=16, rounds=3, flags=LEAN),
    "llama-135m": Case("Llama 135M", "llama-135m", **FEW),
    "llama-135m-lean": Case("Llama 135M, leanest", "llama-135m", flags=LEAN, **FEW),
    "granite-350m": Case("Granite 350M", "granite-350m", **{**FEW, "trained": 14, "longest": 256}),
    "qwen3-0.6b": Case("Qwen3 0.6B", "qwen3-0.6b", **{**FEW, "trained": 14, "longest": 256}),
    "bf16": Case(
        "Llama 135M, 2 of its layers, vocabulary of 8,192", "llama-135m", kind="bfloat16", changes=FEW_LAYERS,
        **{**FEW, "trained": 1, "rows": 4, "longest": 128},
    ),
    "4-bit": Case(
        "Llama 135M, 2 of its layers, vocabulary of 2,048", "llama-135m", kind="4-bit",
        changes={**FEW_LAYERS, "vocab_size": 2048}, **{**FEW, "trained": 1, "rows": 4, "longest": 48},
    ),
    "smollm2": Case("SmolLM2-135M-Instruct", "smollm2", DOCSTRINGS, trained=15, rows=8, rounds=3),
    "smollm2-lean": Case("SmolLM2-135M-Instruct, leanest", "smollm2", DOCSTRINGS, flags=LEAN, trained=15, rows=8, rounds=3),
    "smollm2-4-bit": Case("SmolLM2-135M-Instruct", "smollm2", DOCSTRINGS, "4-bit", trained=15, rows=4, rounds=1),
}  # fmt: skip


def measure(case: Case) -> dict[str, Any]:
    """Measure a case."""
    flags = {"batch_size": 4, "num_layers": case.trained, "learning_rate": 1e-4, **case.flags}
    loaded = load_config(flags=flags)
    model = _model(case)
    rows = _rows(case, model)
    session = prepare(
        loaded.config, loaded.origins, loaded=model, dataset=Dataset({"train": rows}, "synthetic")
    )
    started = time.monotonic()
    result = compare(shortened(session, rows), rounds=case.rounds, tell=_tell).to_dict()
    print(f"  {time.monotonic() - started:.0f} s", file=sys.stderr)
    return {"title": case.title, "data": case.data, "kind": case.kind, **result}


def flop_limit(case: Case, found: dict[str, Any]) -> float:
    """The speedup of the first epoch that follows from arithmetic alone.

    mlx-lm's FLOPs (all positions through the layers and the head) over the least that the rows need (`least_work`).
    """
    config = _config(case)
    hidden, heads, layers = (
        config[name] for name in ("hidden_size", "num_attention_heads", "num_hidden_layers")
    )
    of_heads = config.get("head_dim") or hidden // heads
    attention = 2 * hidden * of_heads * (heads + config["num_key_value_heads"])
    layer = float(attention + 3 * hidden * config["intermediate_size"])
    backward = case.trained if case.trained > 0 else layers
    per_token = layer * (layers + backward * (2 if case.is_full else 1))
    head = float(hidden * config["vocab_size"])
    positions = found["tokens"] / (1 - found["mlx_lm"]["padding"])
    theirs = 2 * positions * per_token + 4 * positions * head
    return theirs / (2 * found["tokens"] * per_token + 4 * found["targets"] * head)


def _config(case: Case) -> dict[str, Any]:
    if case.shape == "tiny":
        return load_model("tiny").config
    return config_of("llama-135m" if case.shape == "smollm2" else case.shape, **case.changes)


def _rows(case: Case, model: LoadedModel) -> Rows:
    if case.data == "WikiSQL":
        return wikisql_rows(case.rows)
    if case.data == DOCSTRINGS:
        texts = sorted({text for text in docstrings() if 40 <= len(text) <= 110})
        texts = random.Random(0).sample(texts, case.rows)
        rows = [np.array(model.tokenizer.encode(text), np.int32) for text in texts]
        return rows_in_memory((row, np.arange(len(row)) > 0) for row in rows)
    mix = LogNormal(case.median, case.median * 524 / 112, longest=case.longest)
    return lognormal_rows(case.rows, mix)


def _model(case: Case) -> LoadedModel:
    if case.shape == "tiny":
        return load_model("tiny")
    if case.shape == "smollm2":
        return load_model("smollm2", dequantize=case.kind != "4-bit")
    config = config_of(case.shape, **case.changes)
    return LoadedModel(case.shape, case.shape, random_model(config, case.kind), None, config)


def _tell(what: str, done: int, total: int) -> None:
    print(f"  {done}/{total} {what}", file=sys.stderr, flush=True)


def run(names: list[str]) -> None:
    """Measure the named cases, and store the results."""
    for name in names:
        case = CASES[name]
        if case.data == "WikiSQL" and missing():
            print(f"{name}: {missing()}", file=sys.stderr)
            continue
        print(name, file=sys.stderr)
        found = measure(case)
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        results[name] = found
        ordered = {key: results[key] for key in CASES if key in results}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


def write() -> None:
    """Replace the tables between their markers in docs/performance.md."""
    results = json.loads(RESULTS.read_text())
    for name, found in results.items():
        found["flop_limit"] = flop_limit(CASES[name], found)
    page = DOCS / "performance.md"
    text = page.read_text()
    full = {name: results.pop(name) for name, case in CASES.items() if case.is_full and name in results}
    tables = (("training", _training(results)), ("sides", _sides(results)), ("full", _full(full)))
    for marker, lines in tables:
        block = "\n".join([f"<!-- {marker} -->", *lines, f"<!-- end {marker} -->"])
        before, rest = text.split(f"<!-- {marker} -->")
        text = before + block + rest.split(f"<!-- end {marker} -->")[1]
    page.write_text(text)


def _training(results: dict[str, Any]) -> list[str]:
    lines = [
        "| model | data | rows x rounds | first epoch | FLOP limit | later epochs | evaluation, first / later | peak above weights | loss |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in results.values():
        low, high = min(found["speedups"]), max(found["speedups"])
        spread = f" ({low:.2f} to {high:.2f})" if found["rounds"] > 1 else ""
        lines.append(
            f"| {found['title']}, {found['kind']} | {found['data']} | {found['rows']} x {found['rounds']} "
            f"| **{found['speedup']:.2f}x**{spread} | {found['flop_limit']:.2f}x | {found['later_epochs_speedup']:.2f}x "
            f"| {found['evaluation_speedup']:.2f}x / {found['later_evaluations_speedup']:.2f}x "
            f"| {found['peak_memory_ratio']:.2f} | {found['loss_difference']:.0e} |"
        )
    return lines


def _full(results: dict[str, Any]) -> list[str]:
    lines = [
        "| model | data | first epoch | later epochs | peak, mlx-lm | peak, mlxsched | ratio | gradients and moments alone |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in results.values():
        theirs, ours = found["mlx_lm"]["peak_memory_mb"], found["mlxsched"]["peak_memory_mb"]
        lines.append(
            f"| {found['title']}, {found['kind']} | {found['data']} | {found['speedup']:.2f}x "
            f"| {found['later_epochs_speedup']:.2f}x | {theirs:,.0f} MB | {ours:,.0f} MB "
            f"| **{found['peak_memory_ratio']:.2f}** | {3 * found['weights_mb'] / theirs:.2f} |"
        )
    return lines


def _sides(results: dict[str, Any]) -> list[str]:
    lines = [
        "| model, data | loop | real tokens/s | targets/s | peak above weights, MB | padding | of the matmul ceiling |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for found in results.values():
        for side, name in (("mlx_lm", "mlx-lm"), ("mlxsched", "mlxsched")):
            values = found[side]
            lines.append(
                f"| {found['title']}, {found['kind']}, {found['data']} | {name} | {values['tokens_per_second']:,.0f} "
                f"| {values['targets_per_second']:,.0f} | {values['peak_memory_mb']:,.0f} | {values['padding']:.0%} "
                f"| {values['ceiling_share']:.1%} of {found['ceiling_gflops']:.0f} GFLOP/s |"
            )
    return lines


def main() -> None:
    """Run, list or write."""
    verb, *names = sys.argv[1:] or ["help"]
    if verb == "run":
        run(names or list(CASES))
    elif verb == "write":
        write()
    elif verb == "list":
        print("\n".join(f"{name}: {case.title}, {case.data}" for name, case in CASES.items()))
    else:
        print(__doc__)


if __name__ == "__main__":
    main()
