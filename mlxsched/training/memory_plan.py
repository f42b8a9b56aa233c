"""Fits a run into the available memory, with settings that don't change its result.

That is the size of micro-batches, gradient checkpointing, and how much of the frozen layers' output stays in memory.
If nothing else helps, full fine-tuning of a bf16 model omits the float32 copies of the weights. The size of the
cross-entropy's chunks is not among them: it is already the least that keeps the device busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import mlx.core as mx
from mlx.nn.layers.base import Module

from mlxsched.config.schema import RunConfig
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.errors import UsageError
from mlxsched.model.load import LoadedModel, count_parameters
from mlxsched.model.trees import flatten, n_bytes
from mlxsched.planning.memory_model import ModelShape
from mlxsched.platform.machine import gpu_memory, total_memory
from mlxsched.text import rounded
from mlxsched.training.averaging import bytes_kept
from mlxsched.training.gpu_timeout import WATCHDOG, short_enough, watched_rate
from mlxsched.training.memory_estimate import PlannedRun, Setting, estimate, workload_of

__all__ = ["MemoryPlan", "default_micro_batch_tokens", "plan_memory", "usable_memory"]

_HEADROOM = 0.8  # of the machine's memory: other programs need some, and the plan is an estimate
_SMALLEST = 128


@dataclass(frozen=True)
class MemoryPlan:
    """The memory that a run is expected to take, in bytes, and the settings that make it fit.

    ``above_weights`` is MLX's peak without the weights; ``cache`` what stored outputs of frozen layers take in
    addition. ``measured``: the peak was measured on this model, not computed from its shape. ``most_tokens``: of a
    micro-batch, whatever memory there is; None for the default. It is measured, so that the config always has what it led to.
    """

    weights: int
    above_weights: int
    cache: int
    limit: int
    micro_batch_tokens: int
    checkpoint: int
    stochastic_rounding: bool = False
    measured: bool = False
    most_tokens: int | None = field(default=None, compare=False)

    @property
    def peak(self) -> int:
        """MLX's peak, including the weights."""
        return self.weights + self.above_weights

    @property
    def fits(self) -> bool:
        """Whether all of it stays within the limit."""
        return self.peak + self.cache <= self.limit

    def applied_to(self, config: RunConfig) -> RunConfig:
        """``config`` with the chosen settings, so that a resume has the same ones, however much memory there is then."""
        changes: dict[str, object] = {}
        usual = config.micro_batch_tokens or default_micro_batch_tokens()
        if self.most_tokens is not None or self.micro_batch_tokens != usual:
            changes["micro_batch_tokens"] = self.micro_batch_tokens
        if self.checkpoint and not config.grad_checkpoint:
            changes["grad_checkpoint"] = True
        if self.stochastic_rounding and not config.stochastic_rounding:
            changes["stochastic_rounding"] = True
        if config.prefix_cache > self.limit - self.peak:
            changes["prefix_cache"] = max(self.limit - self.peak, 1)  # the rest goes to disk
        return config.model_copy(update=changes) if changes else config

    def notes(self, config: RunConfig) -> list[str]:
        """Notes for the user on the choices."""
        after = self.applied_to(config)
        chosen = []
        notes = []
        most = self.most_tokens or default_micro_batch_tokens()
        if config.micro_batch_tokens is None and most < default_micro_batch_tokens():
            notes.append(f"micro-batches of at most {most} tokens, a longer row by itself: {WATCHDOG}")
        if config.micro_batch_tokens is None and self.micro_batch_tokens < most:
            chosen.append(f"micro-batches of {self.micro_batch_tokens} tokens")
        if after.grad_checkpoint != config.grad_checkpoint:
            chosen.append("gradient checkpointing")
        if after.stochastic_rounding != config.stochastic_rounding:
            chosen.append("stochastic rounding in place of float32 copies of the weights")
        if chosen:
            notes.append(f"{' and '.join(chosen)}, to stay within {_gb(self.limit)} of memory")
        if notes and config.lora_parameters.dropout and config.fine_tune_type != "full":
            notes.append(
                "dropout masks depend on how an update is split into micro-batches: with another --memory or "
                "--micro-batch-tokens the run draws other ones"
            )
        return notes


def usable_memory() -> int:
    """Bytes that a run may take by default: Metal's recommendation, or most of the memory of a CUDA GPU or the machine."""
    memory = gpu_memory()
    if memory and mx.metal.is_available():
        return memory
    return round(_HEADROOM * (memory or total_memory()))


def default_micro_batch_tokens() -> int:
    """Padded tokens of a micro-batch: enough to keep the device busy, and few enough to save memory."""
    return 1024 if mx.default_device().type == mx.DeviceType.cpu else 2048


def plan_memory(
    config: RunConfig, loaded: LoadedModel, rows: Rows, order: Sampler, *, again: bool
) -> MemoryPlan:
    """The fastest settings whose peak stays within ``config.memory``, or within what the machine has.

    What the user has set is unchanged. ``again``: rows come more than once, so that outputs of frozen layers are
    worth storing. Raises ``UsageError`` if nothing fits.
    """
    limit = config.memory or usable_memory()
    weights = n_bytes(loaded.model.parameters())
    predicted = estimate(PlannedRun(config, loaded, rows, order), limit - weights)
    averaged = bytes_kept(config, flatten(loaded.model.trainable_parameters()))
    plans: list[MemoryPlan] = []
    most = None if config.micro_batch_tokens else _most_tokens(loaded.model)
    first = config.micro_batch_tokens or most or default_micro_batch_tokens()
    for setting in _settings(config, loaded.model, first):
        peak = predicted.peak(setting) + averaged
        plan = MemoryPlan(weights, peak, 0, limit, *setting, measured=predicted.measured, most_tokens=most)
        plans.append(plan)
        if plans[-1].fits:
            return _with_cache(plans[-1], config, loaded, rows) if again else plans[-1]
    raise _too_much(min(plans, key=lambda plan: plan.peak), config, rows)


def _most_tokens(model: Module) -> int | None:
    """On a Mac's GPU, the default, or fewer where a micro-batch of a large model would keep it busy for too long."""
    rate = watched_rate()
    if rate is None:
        return None
    return short_enough(default_micro_batch_tokens(), count_parameters(model)[0], rate)


def _settings(config: RunConfig, model: Module, tokens: int) -> Iterator[Setting]:
    """All settings in the order of preference: the fastest first, those with less exact rounding last."""
    sizes = [tokens]
    while config.micro_batch_tokens is None and sizes[-1] > _SMALLEST:
        sizes.append(sizes[-1] // 2)
    every = config.checkpoint_every
    plain, recomputed = [(tokens, 0) for tokens in sizes], [(tokens, every) for tokens in sizes]
    # Half the tokens cost a few per cent, checkpointing about a quarter, very small micro-batches more.
    pairs = recomputed if config.grad_checkpoint else [*plain[:2], *recomputed, *plain[2:]]
    roundings = [config.stochastic_rounding]
    if any(value.dtype == mx.bfloat16 for value in flatten(model.trainable_parameters()).values()):
        roundings = list(dict.fromkeys([*roundings, True]))
    return (Setting(*pair, rounding) for rounding in roundings for pair in pairs)


def _with_cache(plan: MemoryPlan, config: RunConfig, loaded: LoadedModel, rows: Rows) -> MemoryPlan:
    """``plan`` with the outputs of the frozen layers in memory if there is room; otherwise they go to disk."""
    frozen = workload_of(config, loaded, 0).trained < len(list(loaded.model.layers))
    size = 4 * ModelShape.of(loaded.config).hidden * (int(rows.lengths.sum()) - len(rows))
    room = min(config.prefix_cache, plan.limit - plan.peak)
    return replace(plan, cache=size) if config.fast and frozen and size <= room else plan


def _too_much(least: MemoryPlan, config: RunConfig, rows: Rows) -> UsageError:
    allowed = "--memory allows" if config.memory else "this machine can spare"
    return UsageError(
        f"this training needs at least about {_gb(least.peak)} ({_gb(least.weights)} of it for the weights), but "
        f"{allowed} {_gb(least.limit)}. The longest row has {int(rows.lengths.max())} tokens: lower --max-seq-length, "
        "lower --num-layers, use a smaller or quantized model, or raise --memory."
    )


def _gb(size: int) -> str:
    return f"{rounded(size / 1e9, 3)} GB"
