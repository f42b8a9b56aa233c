"""Named benchmark cases that need no download: shapes of well-known models with random weights, and rows of random
tokens."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxsched.bench.shapes import config_of, count, random_model
from mlxsched.errors import RunError
from mlxsched.text import megabytes

if TYPE_CHECKING:
    from mlxsched.model.load import LoadedModel
    from mlxsched.training.session import Session

SECONDS = 20.0  # that the candidates of a case may take
BATCH = 4  # rows of an update: mlx-lm's default
BYTES = {
    "float32": 4.0,
    "bfloat16": 2.0,
    "4-bit": 0.5625,
}  # of a weight; a group of 64 has a scale and a bias


@dataclass(frozen=True)
class Case:
    """One comparison: ``shape`` of `SHAPES` or "tiny", in ``kind``, trained in its upper ``trained`` layers.

    ``longest``: the maximum number of tokens per row. ``gpu``: too slow on a CPU, where half-precision and 4-bit
    arithmetic is slow.
    """

    title: str
    shape: str
    kind: str = "float32"
    trained: int = 16
    rows: int = 32
    rounds: int = 3
    longest: int = 512
    gpu: bool = True


CASES = {
    "bundled": Case("bundled model, 0.9M", "tiny", trained=2, rows=64, longest=2048, gpu=False),
    "llama-135m": Case("Llama 135M", "llama-135m", trained=15, rows=8, rounds=1, gpu=False),
    "qwen3-0.6b-bf16": Case("Qwen3 0.6B", "qwen3-0.6b", "bfloat16"),
    "qwen3-0.6b-4bit": Case("Qwen3 0.6B", "qwen3-0.6b", "4-bit"),
    "llama-1b-bf16": Case("Llama 1B", "llama-1b", "bfloat16", trained=8),
    "qwen3-1.7b-4bit": Case("Qwen3 1.7B", "qwen3-1.7b", "4-bit", trained=8),
    "qwen3-4b-bf16": Case("Qwen3 4B", "qwen3-4b", "bfloat16", trained=8, rows=16, longest=256),
    "qwen3-4b-4bit": Case("Qwen3 4B", "qwen3-4b", "4-bit", trained=8, rows=16, longest=256),
}


def obstacle(case: Case, *, asked: bool) -> str | None:
    """Why ``case`` can't run here; None if it can. ``asked``: the user named it, so that it may take long."""
    from mlxsched.bench.measured import by_cpu_time
    from mlxsched.training.memory_plan import usable_memory

    if case.gpu and by_cpu_time() and not asked:
        return "it takes hours on a CPU; --case runs it anyway"
    needed, limit = memory_needed(case), usable_memory()
    if needed > limit:
        return f"it needs about {megabytes(needed)}, and this machine can spare {megabytes(limit)}"
    return None


def memory_needed(case: Case) -> int:
    """Bytes of the weights, and of mlx-lm's loop on the longest rows, which takes more than ours."""
    from mlxsched.planning.memory_model import ModelShape, Workload, peak_above_weights

    if case.shape == "tiny":
        return 10**9
    config = config_of(case.shape)
    weights = BYTES[case.kind] * count(config)
    plain = Workload(case.trained, 0, gathered=False)
    return round(weights + peak_above_weights(ModelShape.of(config), plain, BATCH, case.longest, 0))


def measure(case: Case, tell: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Compare both loops, and time the candidates of each part of a step; the times of the rounds are not kept."""
    from mlxsched.bench.compare import compare, shortened
    from mlxsched.platform.blas import threads

    session = session_of(case)
    used = threads()  # the candidates may change it
    found = compare(shortened(session, session.train_rows), rounds=case.rounds, tell=tell).to_dict()
    keys = (
        "speedup", "speedups", "later_epochs_speedup", "evaluation_speedup", "later_evaluations_speedup",
        "peak_memory_ratio", "loss_difference", "rounds", "rows", "tokens", "targets", "clock", "ceiling_gflops",
    )  # fmt: skip
    sides = {f"{side}_tokens_per_second": found[side]["tokens_per_second"] for side in ("mlx_lm", "mlxsched")}
    return {
        "title": case.title,
        "kind": case.kind,
        "longest": case.longest,
        "trained": case.trained,
        "blas_threads": used,
        **{key: found[key] for key in keys},
        **sides,
        "candidates": _candidates(session),
    }


def _candidates(session: Session) -> list[dict[str, Any]]:
    from mlxsched.training.acceleration import training_path
    from mlxsched.training.tuning.tuner import Tuner

    tuner = Tuner(session, most=SECONDS, share=0.0)
    with suppress(RunError):  # a GPU timeout, which must not lose the comparison
        training_path(session, lambda note: None, tuner)
    keys = ("kind", "name", "gain", "chosen", "refused")
    return [{key: getattr(case, key) for key in keys} for case in tuner.result.cases]


def session_of(case: Case) -> Session:
    """The run of ``case``, prepared."""
    from mlxsched.bench.synthetic import LogNormal, lognormal_rows
    from mlxsched.config import load_config
    from mlxsched.data import Dataset
    from mlxsched.training.session import prepare

    loaded = load_config(flags={"batch_size": BATCH, "num_layers": case.trained, "learning_rate": 1e-4})
    rows = lognormal_rows(case.rows, LogNormal(longest=case.longest))
    dataset = Dataset({"train": rows}, "synthetic")
    return prepare(loaded.config, loaded.origins, loaded=_model(case), dataset=dataset)


def _model(case: Case) -> LoadedModel:
    from mlxsched.model.load import LoadedModel, load_model, planned_threads
    from mlxsched.platform.blas import use_threads

    if case.shape == "tiny":
        return load_model("tiny")
    config = config_of(case.shape)
    use_threads(planned_threads(config))  # as `load_model` does; otherwise the case before decides
    return LoadedModel(case.shape, case.shape, random_model(config, case.kind), None, config)
