"""A model with its adapter added into the weights, by mlx-lm's own fusing, and the proof that it computes the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.nn.layers.base import Module
from mlx.utils import tree_unflatten

from mlxsched.data import DataOptions, load_dataset
from mlxsched.errors import ChecksFailed, DataError, ModelError
from mlxsched.export.adapter import TrainedAdapter
from mlxsched.export.folder import check_free, write_folder
from mlxsched.model.load import max_positions, widen_on_cpu
from mlxsched.model.trees import flatten
from mlxsched.platform.paths import cache_home
from mlxsched.platform.precision import multiplies_in_tf32

ROWS, MOST_TOKENS = 8, 512  # what is compared: so many rows, cut to so many tokens

# The mean divergence KL(adapter || fused) of a token, in nats, that rounding explains. In float32 it was below 1e-7 on
# the tiny model; a half-precision weight has 8 to 11 bits, so what is added to it is rounded. In TF32, products round their
# inputs to 11 bits, but the weights stay exact.
TOLERANCE = {mx.float32: 1e-5, mx.float16: 1e-2, mx.bfloat16: 1e-2}
TOLERANCE_TF32 = 1e-3
_TEXTS = ("The quick brown fox jumps over the lazy dog.", "def f(x):\n    return x + 1", "1 + 1 = 2")


@dataclass(frozen=True)
class FuseReport:
    """How far the fused model is from the model with its adapter.

    ``divergence`` is the mean KL divergence of a token in nats, ``same_choice`` the share of tokens with the same most
    likely next token, ``loss_adapter`` and ``loss_fused`` the loss over all tokens of the rows, ``tolerance`` the most
    that ``divergence`` may be (None where weights were quantized again, which has a cost and no bound).
    """

    path: str
    rows: int
    tokens: int
    divergence: float
    same_choice: float
    loss_adapter: float
    loss_fused: float
    tolerance: float | None
    requantized: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def fuse(
    adapter: TrainedAdapter, target: Path, *, dequantize: bool = False, force: bool = False
) -> FuseReport:
    """Write the fused model to ``target``, in mlx-lm's format, after comparing it with the model and its adapter.

    Raises `ChecksFailed`, and writes nothing, where they differ by more than rounding.
    """
    check_free(target, ["config.json", "model.safetensors"], force=force)
    dequantize = dequantize or adapter.config.dequantize
    model, tokenizer, config = _load(adapter)
    rows = sample_rows(adapter, tokenizer)
    before = [_logits(model, row) for row in rows]
    requantized = bool(config.get("quantization")) and not dequantize
    config = fuse_modules(model, config, dequantize=dequantize)
    after = [_logits(model, row) for row in rows]
    tolerance = None if requantized else _tolerance(model)
    report = _compare(str(target), rows, before, after, tolerance)
    if tolerance is not None and not report.divergence <= tolerance:
        raise ChecksFailed(
            f"the fused model differs from the adapter by {report.divergence:.2e} nats per token; at most "
            f"{tolerance:g} is rounding. Nothing was written. Use the adapter as it is: {adapter.path}"
        )

    def fill(directory: Path) -> None:
        _save(directory, adapter, model, tokenizer, config)
        _check_saved(directory, rows[0], after[0])

    write_folder(target, fill, force=force)
    return report


def divergence_of_folders(adapter: TrainedAdapter, one: Path, other: Path) -> float:
    """Mean KL divergence of a token, in nats, between two models in mlx-lm's format, on rows of the run's data."""
    import mlx_lm.utils

    load: Any = mlx_lm.utils.load
    model, tokenizer = load(str(one))
    widen_on_cpu(model)
    rows = sample_rows(adapter, tokenizer)
    before = [_logits(model, row) for row in rows]
    model, _ = load(str(other))
    widen_on_cpu(model)
    return _compare(str(other), rows, before, [_logits(model, row) for row in rows], None).divergence


def fuse_modules(model: Module, config: dict[str, Any], *, dequantize: bool) -> dict[str, Any]:
    """Replace each LoRA module of ``model`` by its fused form, as `mlx_lm.fuse` does; returns the config to save.

    DoRA's magnitude is float32 and would widen the weights: they get the type of the base's again.
    """
    from mlx_lm.utils import dequantize_model

    fused = []
    for name, module in model.named_modules():
        if hasattr(module, "fuse"):
            base: Any = module["linear"] if "linear" in module else module["embedding"]
            dtype = (base.scales if "scales" in base else base.weight).dtype
            merged = module.fuse(dequantize=dequantize)
            merged.set_dtype(dtype)
            fused.append((name, merged))
    if fused:
        model.update_modules(tree_unflatten(fused))
    if dequantize:
        convert: Any = dequantize_model
        convert(model)
        config = {key: v for key, v in config.items() if key not in ("quantization", "quantization_config")}
    model.eval()
    return config


def sample_rows(adapter: TrainedAdapter, tokenizer: Any) -> list[list[int]]:
    """A few rows of the run's data, validation first; of fixed texts where the data is gone."""
    config = adapter.config
    try:
        options = DataOptions.of_run(
            config, max_positions=max_positions(adapter.model_config()), cache_dir=cache_home() / "rows"
        )
        splits = load_dataset(config.hf_dataset or config.data, tokenizer, options).splits
    except DataError:
        return [list(tokenizer.encode(text)) for text in _TEXTS]
    rows = next(splits[name] for name in ("valid", "test", "train") if name in splits)
    chosen = [[int(token) for token in rows[i].tokens[:MOST_TOKENS]] for i in range(min(ROWS, len(rows)))]
    return [row for row in chosen if len(row) > 1]


def _load(adapter: TrainedAdapter) -> tuple[Module, Any, dict[str, Any]]:
    """Through mlx-lm alone, in the types that the files have: what is saved has them too."""
    import mlx_lm.utils

    trust = adapter.config.trust_remote_code
    try:
        loaded: Any = mlx_lm.utils.load(
            str(adapter.model_path),
            adapter_path=str(adapter.path),
            tokenizer_config={"trust_remote_code": trust},
            return_config=True,
            trust_remote_code=trust,
        )
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise ModelError(
            f"cannot load {adapter.model_path} with the adapter {adapter.path}: {error}"
        ) from error
    model, tokenizer, config = loaded
    return model, tokenizer, config


def _logits(model: Module, row: Sequence[int]) -> mx.array:
    """Logits, (tokens, vocabulary) in float32, evaluated: the model is changed afterwards."""
    logits: mx.array = model(mx.array([list(row)]))[0].astype(mx.float32)
    mx.eval(logits)
    return logits


def _tolerance(model: Module) -> float:
    """The tolerance for the narrowest float among the weights."""
    found = {value.dtype for value in flatten(model.parameters()).values()}
    narrowest = next((kind for kind in (mx.bfloat16, mx.float16) if kind in found), mx.float32)
    return TOLERANCE_TF32 if narrowest == mx.float32 and multiplies_in_tf32() else TOLERANCE[narrowest]


def _compare(
    path: str,
    rows: list[list[int]],
    before: list[mx.array],
    after: list[mx.array],
    tolerance: float | None,
) -> FuseReport:
    divergence = same = 0.0
    losses = [0.0, 0.0]
    for row, one, other in zip(rows, before, after, strict=True):
        p, q = (x - mx.logsumexp(x, axis=-1, keepdims=True) for x in (one, other))
        divergence += float((mx.exp(p) * (p - q)).sum())
        same += float((one.argmax(-1) == other.argmax(-1)).sum())
        targets = mx.array(row[1:])[:, None]
        for index, log in enumerate((p, q)):
            losses[index] -= float(mx.take_along_axis(log[:-1], targets, axis=-1).sum())
    tokens = sum(map(len, rows))
    scored = max(tokens - len(rows), 1)
    return FuseReport(
        path=path,
        rows=len(rows),
        tokens=tokens,
        divergence=max(divergence / tokens, 0.0) if divergence == divergence else divergence,
        same_choice=same / tokens,
        loss_adapter=losses[0] / scored,
        loss_fused=losses[1] / scored,
        tolerance=tolerance,
        requantized=tolerance is None,
    )


def _save(
    directory: Path, adapter: TrainedAdapter, model: Module, tokenizer: Any, config: dict[str, Any]
) -> None:
    import mlx_lm.utils

    save: Any = mlx_lm.utils.save
    save(directory, str(adapter.model_path), model, tokenizer, config, donate_model=False)


def _check_saved(directory: Path, row: Sequence[int], expected: mx.array) -> None:
    """Load what was written and compare it: a tensor that a loader leaves out or renames is found here."""
    from mlx_lm.utils import load_model

    load: Any = load_model
    model, _ = load(directory)
    if not mx.allclose(_logits(model, row), expected, rtol=1e-3, atol=1e-3):
        raise ChecksFailed(
            "the fused model gives different results after saving and loading. Nothing was written."
        )
