"""Fits a run into the memory there is, by what can't change its result: the size of micro-batches, checkpointing,
and how much of the frozen layers' outputs stays in memory.

The size of the cross-entropy's chunks is not among them: it is already the least that keeps the device busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import mlx.core as mx

from mlxsched.config.schema import RunConfig
from mlxsched.data.batching.plan import BatchingPlan, packed_plan, padded_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.errors import UsageError
from mlxsched.model.fast.attention import WHOLE, blocks_for, cuts_all
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.model.fast.forward_path import padded_targets
from mlxsched.model.fast.samples import packed_sample, sample_batch
from mlxsched.model.load import LoadedModel
from mlxsched.model.trees import flatten, n_bytes
from mlxsched.planning.memory_model import ModelShape, Workload, peak_above_weights
from mlxsched.platform.machine import total_memory

_HEADROOM = 0.8  # of the machine's memory: the system and other programs want some, and an estimate is one
_SMALLEST = 128


@dataclass(frozen=True)
class MemoryPlan:
    """What a run is expected to take, in bytes, and the settings that make it fit.

    ``above_weights`` is MLX's peak without the weights, ``cache`` what the outputs of frozen layers take beside it.
    """

    weights: int
    above_weights: int
    cache: int
    limit: int
    micro_batch_tokens: int
    checkpoint: int

    @property
    def peak(self) -> int:
        """MLX's peak, the weights included."""
        return self.weights + self.above_weights

    @property
    def fits(self) -> bool:
        """Whether all of it stays within the limit."""
        return self.peak + self.cache <= self.limit

    def applied_to(self, config: RunConfig) -> RunConfig:
        """``config`` with what was chosen, so that a resume finds it, however much memory there is then."""
        changes: dict[str, object] = {}
        if self.micro_batch_tokens != (config.micro_batch_tokens or default_micro_batch_tokens()):
            changes["micro_batch_tokens"] = self.micro_batch_tokens
        if self.checkpoint and not config.grad_checkpoint:
            changes["grad_checkpoint"] = True
        if config.prefix_cache > self.limit - self.peak:
            changes["prefix_cache"] = max(self.limit - self.peak, 1)  # beyond that they go on disk
        return config.model_copy(update=changes) if changes else config

    def notes(self, config: RunConfig) -> list[str]:
        """What a user should know of the choices."""
        after = self.applied_to(config)
        said = []
        if after.micro_batch_tokens != config.micro_batch_tokens:
            said.append(f"micro-batches of {self.micro_batch_tokens} tokens")
        if after.grad_checkpoint != config.grad_checkpoint:
            said.append("gradient checkpointing")
        return [f"{' and '.join(said)}, to stay within {_gb(self.limit)} of memory"] if said else []


def usable_memory() -> int:
    """Bytes that a run may take where nobody says: Metal's recommendation, else most of the machine's memory."""
    recommended = mx.device_info().get("max_recommended_working_set_size")
    return int(recommended) if recommended else round(_HEADROOM * total_memory())


def default_micro_batch_tokens() -> int:
    """Padded tokens of a micro-batch: enough to keep the device busy, few enough to stay lean."""
    return 1024 if mx.default_device().type == mx.DeviceType.cpu else 2048


def batching_plan(config: RunConfig, order: Sampler, max_tokens: int) -> BatchingPlan:
    """The micro-batches of a run, with several rows in a line where that is asked for or predicted to gain."""
    padded = padded_plan(order, max_tokens)
    if not config.fast or config.packing is False:
        return padded
    return packed_plan(padded, order, always=config.packing is True) or padded


def plan_memory(
    config: RunConfig, loaded: LoadedModel, rows: Rows, order: Sampler, *, again: bool
) -> MemoryPlan:
    """The fastest settings whose peak stays within ``config.memory``, or within what the machine has.

    What the user has set stays as it is. ``again``: rows come more than once, so that outputs of frozen layers are
    worth keeping. Raises ``UsageError`` if nothing fits.
    """
    limit = config.memory or usable_memory()
    plans: list[MemoryPlan] = []
    for tokens, checkpoint in _settings(config):
        plans.append(_predict(config, loaded, rows, order, limit, tokens, checkpoint))
        if plans[-1].fits:
            return _with_cache(plans[-1], config, loaded, rows) if again else plans[-1]
    raise _too_much(min(plans, key=lambda plan: plan.peak), config, rows)


def _settings(config: RunConfig) -> Iterator[tuple[int, int]]:
    """Pairs of micro-batch tokens and checkpointing, the fastest first."""
    most = config.micro_batch_tokens or default_micro_batch_tokens()
    sizes = [most]
    while config.micro_batch_tokens is None and sizes[-1] > _SMALLEST:
        sizes.append(sizes[-1] // 2)
    every = config.checkpoint_every
    if config.grad_checkpoint:
        return iter([(tokens, every) for tokens in sizes])
    # Half the tokens cost a few per cent, checkpointing about a quarter, very small micro-batches more.
    plain, again = [(tokens, 0) for tokens in sizes], [(tokens, every) for tokens in sizes]
    return iter([*plain[:2], *again, *plain[2:]])


def _predict(
    config: RunConfig,
    loaded: LoadedModel,
    rows: Rows,
    order: Sampler,
    limit: int,
    tokens: int,
    checkpoint: int,
) -> MemoryPlan:
    shape, way = ModelShape.of(loaded.config), workload_of(config, loaded, checkpoint)
    share = float(rows.target_counts.sum()) / max(int(rows.lengths.sum()), 1)
    cut = batching_plan(config, order, tokens)
    blocks = blocks_for(checkpoint)
    if not config.fast or not cuts_all(loaded.model, max(length for _, length in cut.shapes), blocks):
        blocks = WHOLE
    packed = {cut.packing.width} if cut.packing else set()  # lines that have a mask of their own
    above = max(
        peak_above_weights(
            shape,
            way if length in packed else replace(way, scores=blocks.shares(length)),
            count,
            length,
            padded_targets(round(share * count * length), count * length),
        )
        for count, length in cut.shapes
    )
    if config.fast:
        above = max(above, _self_check(shape, way, rows))
    if cut.packing is not None:
        longest = max(batch.shape[1] for batch in packed_sample(rows, cut.packing, shape.vocabulary)[0])
        above = max(above, peak_above_weights(shape, _plain(way), 1, longest, longest))
    weights = n_bytes(loaded.model.parameters())
    return MemoryPlan(weights, above, 0, limit, tokens, checkpoint)


def _self_check(shape: ModelShape, way: Workload, rows: Rows) -> int:
    """Bytes that the plain path takes on the few rows that the short cuts are compared on at the start."""
    count, length = sample_batch(rows, shape.vocabulary).shape
    return peak_above_weights(shape, _plain(way), count, length, count * length)


def _plain(way: Workload) -> Workload:
    return replace(way, gathered=False, chunk=None, checkpoint=0)


def workload_of(config: RunConfig, loaded: LoadedModel, checkpoint: int) -> Workload:
    """The way through the model that the config asks for, short cuts included."""
    model = loaded.model
    layers = list(model.layers)
    trained = [bool(flatten(layer.trainable_parameters())) for layer in layers]
    first = trained.index(True) if True in trained else 0
    full = config.fine_tune_type == "full"  # adapters are float32 and promote what goes through them
    widths = {value.dtype.size for value in flatten(model.trainable_parameters()).values()}
    vocabulary = ModelShape.of(loaded.config).vocabulary
    return Workload(
        trained=len(layers) - first,
        trained_bytes=n_bytes(model.trainable_parameters()),
        gathered=config.fast,
        chunk=chunk_rows(vocabulary, checkpoint) if config.fast else None,
        checkpoint=checkpoint,
        width=max(widths) if full and widths else 4,
    )


def _with_cache(plan: MemoryPlan, config: RunConfig, loaded: LoadedModel, rows: Rows) -> MemoryPlan:
    """``plan`` with the outputs of the frozen layers in memory, if there is room; else they go on disk."""
    frozen = workload_of(config, loaded, 0).trained < len(list(loaded.model.layers))
    size = 4 * ModelShape.of(loaded.config).hidden * (int(rows.lengths.sum()) - len(rows))
    room = min(config.prefix_cache, plan.limit - plan.peak)
    return replace(plan, cache=size) if config.fast and frozen and size <= room else plan


def _too_much(least: MemoryPlan, config: RunConfig, rows: Rows) -> UsageError:
    allowed = "--memory allows" if config.memory else "this machine can spare"
    return UsageError(
        f"this training needs about {_gb(least.peak)} at the least ({_gb(least.weights)} of it the weights), and "
        f"{allowed} {_gb(least.limit)}. The longest row has {int(rows.lengths.max())} tokens: lower --max-seq-length, "
        "lower --num-layers, take a smaller or quantized model, or raise --memory."
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"
