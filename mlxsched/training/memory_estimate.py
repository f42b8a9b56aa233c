"""The peak memory of a run's updates: from a closed form where it was fitted, measured on the model elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol

import mlx.core as mx

from mlxsched.config.schema import RunConfig
from mlxsched.data.batching.grid import Shape
from mlxsched.data.batching.packing import Packing
from mlxsched.data.batching.plan import WORTHWHILE, BatchingPlan, packed_plan, padded_plan, shared_plan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.model.fast.attention import WHOLE, Blocks, blocks_for, copies_shared_keys, cuts_all
from mlxsched.model.fast.cross_entropy import chunk_rows
from mlxsched.model.fast.forward_path import ForwardPath, padded_targets
from mlxsched.model.fast.samples import packed_sample, sample_batch
from mlxsched.model.fast.selection import choose_path, with_packing
from mlxsched.model.fast.self_check import SelfCheck
from mlxsched.model.load import LoadedModel
from mlxsched.model.trees import flatten, n_bytes
from mlxsched.planning.memory_model import FITTED, ModelShape, Workload, peak_above_weights
from mlxsched.training.optimizers import group_tensors
from mlxsched.training.peak_probe import PeakProbe, peak_of


class Setting(NamedTuple):
    """What a memory plan chooses: tokens of a micro-batch, every n-th layer recomputed, and how weights are rounded."""

    tokens: int
    checkpoint: int
    stochastic_rounding: bool = False


class PlannedRun(NamedTuple):
    """The run to be estimated, its adapter attached."""

    config: RunConfig
    loaded: LoadedModel
    rows: Rows
    sampler: Sampler

    def batching(self, max_tokens: int) -> BatchingPlan:
        """The micro-batches of the run, packed where that is asked for or predicted to be faster."""
        return batching_plan(self.config, self.rows, self.sampler, max_tokens)

    @property
    def target_share(self) -> float:
        """Targets among all tokens."""
        return self.rows.scored / max(int(self.rows.lengths.sum()), 1)


class Estimate(Protocol):
    """Predicts the peak above the weights, in bytes."""

    measured: bool

    def peak(self, setting: Setting) -> int:
        """Bytes above the weights at the peak of an update with ``setting``."""


def estimate(run: PlannedRun, room: int) -> Estimate:
    """The closed form for what it was fitted to, measurements for everything else.

    ``room``: bytes above the weights that no measurement may exceed.
    """
    config, trainable = run.config, flatten(run.loaded.model.trainable_parameters())
    narrow = any(value.dtype.size < 4 for value in trainable.values())
    fitted = run.loaded.config.get("model_type") in FITTED and config.fine_tune_type != "dora" and not narrow
    return ClosedForm(run) if fitted else Probed(run, room)


@dataclass
class ClosedForm:
    """`peak_above_weights` of the most expensive micro-batch."""

    run: PlannedRun
    measured: bool = False

    def peak(self, setting: Setting) -> int:
        """The largest peak over the shapes of the micro-batches and the self-check's."""
        config, loaded = self.run.config, self.run.loaded
        shape, workload = ModelShape.of(loaded.config), workload_of(config, loaded, setting.checkpoint)
        batching, blocks = self.run.batching(setting.tokens), blocks_for(setting.checkpoint)
        if (
            "blocks" in config.left_out
            or not config.fast
            or not cuts_all(loaded.model, max(width for _, width in batching.shapes))
        ):
            blocks = WHOLE
        packed = {batching.packing.width} if batching.packing else set()
        # A packed line's mask is an array, so its attention is not cut into blocks.
        parts = [
            (workload if width in packed else replace(workload, scores=blocks.shares(width)), (count, width))
            for count, width in self._whole_shapes(batching, workload.trained)
        ]
        if batching.sharing:
            parts += [
                (replace(workload, held=length, scores=blocks.shares(length)), (1, length))
                for length in batching.sharing.lengths
            ]
            parts += [
                (_behind(workload, blocks, before, (count, width)), (count, width))
                for before, (count, width) in batching.sharing.shapes
            ]
        peaks = [self._peak(shape, *part) for part in parts]
        return max(peaks + self._self_checks(shape, workload, batching))

    def _whole_shapes(self, batching: BatchingPlan, trained: int) -> tuple[Shape, ...]:
        """Shapes of whole rows: all planned ones if the run may store the outputs of frozen layers instead of
        sharing."""
        config, layers = self.run.config, len(list(self.run.loaded.model.layers))
        rival = saved_by_storing(layers - trained if config.prefix_cache else 0, layers)
        shares = batching.sharing is not None and (config.share_prompts or batching.sharing.saved > rival)
        return batching.used_shapes if shares else batching.shapes

    def _peak(self, shape: ModelShape, workload: Workload, micro_batch: Shape) -> int:
        count, width = micro_batch
        targets = padded_targets(round(self.run.target_share * count * width), count * width)
        return peak_above_weights(shape, workload, count, width, targets)

    def _self_checks(self, shape: ModelShape, workload: Workload, batching: BatchingPlan) -> list[int]:
        """Peaks of the plain path on the few rows that the self-check compares forward paths on."""
        if not self.run.config.fast:
            return []
        plain = replace(workload, gathered=False, chunk=None, checkpoint=0, limited=False)
        count, width = sample_batch(self.run.rows, shape.vocabulary).shape
        peaks = [peak_above_weights(shape, plain, count, width, count * width)]
        if batching.packing is not None:
            alone, _ = packed_sample(self.run.rows, batching.packing, shape.vocabulary)
            longest = max(batch.shape[1] for batch in alone)
            peaks.append(peak_above_weights(shape, plain, 1, longest, longest))
        return peaks


def _behind(workload: Workload, blocks: Blocks, before: int, micro_batch: Shape) -> Workload:
    """``workload`` for rows of a ``micro_batch`` that continue a shared prompt of ``before`` tokens."""
    count, width = micro_batch
    workload = replace(workload, before=before, held=before)
    if copies_shared_keys(blocks):
        # Blocks save little where keys are copied. For a single row there is nothing to copy, and no scores are kept,
        # but MLX is several blocks ahead.
        alone = count == 1 and not blocks.kept and len(blocks.edges(width)) > 1
        return replace(workload, scores=(0.0, 1.0)) if alone else workload
    kept, flying = ((before + share * width) / (before + width) for share in blocks.shares(width))
    return replace(workload, copied=False, scores=(kept, flying))


@dataclass
class Probed:
    """The most expensive micro-batches trained on the model itself, along the forward path that the run would take."""

    run: PlannedRun
    room: int
    measured: bool = True
    _paths: dict[int, tuple[ForwardPath, int]] = field(default_factory=dict)
    _probes: dict[tuple[int, bool, bool], PeakProbe] = field(default_factory=dict)

    def peak(self, setting: Setting) -> int:
        """The largest peak over the most expensive shapes and the self-check."""
        batching = self.run.batching(setting.tokens)
        path, checked = self._path(setting.checkpoint)
        if batching.packing is not None:
            path, packed_check = self._packed(path, batching.packing)
            checked = max(checked, packed_check)
            if path.packing is None:
                batching = padded_plan(self.run.sampler, setting.tokens)
        probe = self._probe(setting, path)
        peak = max(checked, *(probe.peak(shape) for shape in most_expensive(batching.shapes)))
        return peak + self._shared_keys(batching)

    def _shared_keys(self, batching: BatchingPlan) -> int:
        """Bytes of the keys and values of shared prompts, which a probe with whole rows does not include."""
        if batching.sharing is None:
            return 0
        most = max(count * (before + width) for before, (count, width) in batching.sharing.shapes)
        return (
            2
            * 4
            * ModelShape.of(self.run.loaded.config).keys
            * len(list(self.run.loaded.model.layers))
            * most
        )

    def _path(self, checkpoint: int) -> tuple[ForwardPath, int]:
        """The forward path with every ``checkpoint``-th layer recomputed, and the peak of the self-check."""
        if not self.run.config.fast:
            return ForwardPath(checkpoint=checkpoint), 0
        if checkpoint not in self._paths:
            found: list[ForwardPath] = []

            def choose() -> None:
                check = SelfCheck(self.run.loaded.model, self.run.rows)
                without = self.run.config.left_out
                found.append(choose_path(check, _ignore, checkpoint=checkpoint, without=without))

            peak = peak_of(choose)
            self._paths[checkpoint] = found[0], peak
        return self._paths[checkpoint]

    def _packed(self, path: ForwardPath, packing: Packing) -> tuple[ForwardPath, int]:
        """``path`` with packed lines where the model allows them, and the peak of the self-check."""
        found: list[ForwardPath] = []

        def choose() -> None:
            check = SelfCheck(self.run.loaded.model, self.run.rows, packing=packing)
            found.append(with_packing(check, path, packing, _ignore))

        peak = peak_of(choose)
        return found[0], peak

    def _probe(self, setting: Setting, path: ForwardPath) -> PeakProbe:
        """One for each kind of step, so that what was measured for other sizes is known."""
        key = (setting.checkpoint, setting.stochastic_rounding, path.packing is not None)
        if key not in self._probes:
            config, model = self.run.config, self.run.loaded.model
            make_optimizer = partial(
                group_tensors,
                flatten(model.trainable_parameters()),
                config.optimizer,
                config.optimizer_arguments,
                bias_correction=config.bias_correction,
                lora_plus_ratio=config.lora_plus_ratio,
                stochastic_rounding=setting.stochastic_rounding,
            )
            self._probes[key] = PeakProbe(model, make_optimizer, path, self.run.target_share, self.room)
        self._probes[key].path = path
        return self._probes[key]


def _ignore(note: str) -> None:
    """The run itself will say what is not used."""


def most_expensive(shapes: tuple[Shape, ...]) -> list[Shape]:
    """The shapes of most tokens, most attention scores and greatest length.

    >>> most_expensive(((64, 16), (8, 128), (1, 512)))
    [(1, 512), (64, 16)]
    """
    tokens = max(shapes, key=lambda shape: shape[0] * shape[1])
    scores = max(shapes, key=lambda shape: shape[0] * shape[1] ** 2)
    return sorted({tokens, scores, max(shapes, key=lambda shape: shape[1])})


def batching_plan(
    config: RunConfig, rows: Rows, sampler: Sampler, max_tokens: int, *, rival: float = 0.0
) -> BatchingPlan:
    """The micro-batches of a run, packed or with shared prompts if that is requested or predicted to be faster.

    Not both, since a packed line has no caches. Prompts are not shared with dropout, which draws other masks for each
    row, nor if that saves less than ``rival``, the share that stored outputs of frozen layers would save.
    """
    plan = padded_plan(sampler, max_tokens)
    if config.fast and config.packing is not False:
        plan = packed_plan(plan, sampler, always=config.packing is True) or plan
    if not config.shares_prompts or config.packing or config.lora_parameters.dropout > 0:
        return plan
    least = 0.0 if config.share_prompts else max(rival, 1 - WORTHWHILE)
    return shared_plan(plan, rows, sampler, least=least) or plan


def saved_by_storing(frozen: int, layers: int) -> float:
    """The share of an update's cost that stored outputs of ``frozen`` of the ``layers`` save: their forward pass.

    A trained layer has a backward pass as well, which costs about as much.
    """
    return frozen / (frozen + 2 * (layers - frozen))


def workload_of(config: RunConfig, loaded: LoadedModel, checkpoint: int) -> Workload:
    """What the closed form needs to know of the run besides the shape of the model."""
    model = loaded.model
    layers = list(model.layers)
    trained = [bool(flatten(layer.trainable_parameters())) for layer in layers]
    first = trained.index(True) if True in trained else 0
    full = config.fine_tune_type == "full"  # adapters are float32 and promote what goes through them
    widths = {value.dtype.size for value in flatten(model.trainable_parameters()).values()}
    vocabulary = ModelShape.of(loaded.config).vocabulary
    gathered = config.fast and "loss-at-targets" not in config.left_out
    return Workload(
        trained=len(layers) - first,
        trained_bytes=n_bytes(model.trainable_parameters()),
        gathered=gathered,
        chunk=chunk_rows(vocabulary, checkpoint) if gathered and "chunks" not in config.left_out else None,
        checkpoint=checkpoint,
        width=max(widths) if full and widths else 4,
        limited=limits_allocation(config, checkpoint),
    )


def limits_allocation(config: RunConfig, checkpoint: int) -> bool:
    """Whether a run with every ``checkpoint``-th layer recomputed limits how far MLX allocates ahead.

    Not on a GPU, where the limit would also empty MLX's cache of buffers, at a cost that has not been measured.
    """
    cpu = mx.default_device().type == mx.DeviceType.cpu
    return checkpoint > 0 and cpu and config.fast and "allocation-limit" not in config.left_out
