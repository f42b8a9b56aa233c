"""A session: a run whose model is loaded, whose adapter is attached and whose plan is made, before the first update.

The three phases in this order, because each needs the one before: `load`, `attach`, `plan`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mlxsched.analysis.findings import Finding
from mlxsched.config.schema import RunConfig
from mlxsched.data import DataOptions, Dataset, OnRows, load_dataset
from mlxsched.data import load as loading
from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.batching.shares import SharedSampler, share_of
from mlxsched.data.rows import Indices, Rows
from mlxsched.errors import ConfigError, DataError, ScheduleError
from mlxsched.model import adapters
from mlxsched.model.adapters import Attached
from mlxsched.model.load import LoadedModel, count_parameters, load_model, max_positions
from mlxsched.model.start_adapter import attach_adapter
from mlxsched.model.trees import flatten, n_bytes
from mlxsched.planning.length import plan_length
from mlxsched.planning.memory_model import allocation_limit
from mlxsched.planning.plan import DataSize, ModelSize, Plan, make_plan, steps_per_eval
from mlxsched.planning.schedule import ScheduleLike, resolve_schedule
from mlxsched.planning.settings import settings_findings
from mlxsched.runs.ownership import refuse_foreign_adapter
from mlxsched.text import counted
from mlxsched.training.averaging import average_findings
from mlxsched.training.memory_estimate import batching_plan, limits_allocation, saved_by_storing
from mlxsched.training.memory_plan import MemoryPlan, plan_memory
from mlxsched.training.policies.snapshots import snapshot_findings
from mlxsched.training.workers.world import ALONE, World


@dataclass(frozen=True)
class Session:
    """A run that has been planned and not yet started.

    Args:
        config: with the settings that the memory plan chose.
        origins: where each value of the config comes from.
        loaded: the model with the adapter attached.
        dataset: tokenized rows of each split; there are training rows.
        schedule: the rate as a function of the update index.
        plan: what the run is going to do.
        trained_layers: number of layers with an adapter.
        memory: the settings that keep the run within its memory, and what it is expected to take.
        cache: where tokenized rows and frozen-prefix activations are kept for later runs; None for nowhere.
        world: the workers that train it together.
        started: when `prepare` began, by `time.monotonic`: ``max_time`` counts from there; None for from the run on.
    """

    config: RunConfig
    origins: Mapping[str, str]
    loaded: LoadedModel
    dataset: Dataset
    schedule: ScheduleLike
    plan: Plan
    trained_layers: int
    memory: MemoryPlan
    cache: Path | None = None
    world: World = ALONE
    started: float | None = None

    @property
    def train_rows(self) -> Rows:
        """The rows to train on."""
        return training_rows(self.dataset)

    @property
    def micro_batch_tokens(self) -> int:
        """The most padded tokens that go through the model at once."""
        return self.memory.micro_batch_tokens

    @property
    def allocation_limit(self) -> int | None:
        """The bytes above the weights that updates may take before MLX waits for results; None for no limit.

        None where the peak is measured instead of calculated: how low a limit may be there has not been measured.
        """
        memory = self.memory
        if memory.measured or not limits_allocation(self.config, memory.checkpoint):
            return None
        return allocation_limit(memory.above_weights)

    @property
    def answering_memory(self) -> int:
        """The bytes that generated answers may take: an update's, without the trained weights and their two moments."""
        held = 3 * n_bytes(self.loaded.model.trainable_parameters())
        return max(self.memory.above_weights - held, 0)

    @cached_property
    def sampler(self) -> Sampler:
        """Which training rows each update holds."""
        return _sampler(self.config, self.train_rows, self.plan.batch_size)

    @cached_property
    def own_sampler(self) -> Sampler:
        """Which training rows of each update this worker trains on."""
        rank, size = self.world.rank, self.world.size
        return self.sampler if size == 1 else SharedSampler.of(self.sampler, rank, size)

    def own_rows(self, indices: Indices) -> Indices:
        """Those of the rows of an update that this worker trains on."""
        return share_of(indices, self.train_rows.lengths, self.world.rank, self.world.size)

    @cached_property
    def batching(self) -> BatchingPlan:
        """How the rows of an update become micro-batches, unless the self-check finds packing wrong for the model."""
        tokens, rival = self.micro_batch_tokens, self._saved_by_stored_activations
        return batching_plan(self.config, self.train_rows, self.own_sampler, tokens, rival=rival)

    @property
    def _saved_by_stored_activations(self) -> float:
        """The share of the cost that stored outputs of the frozen layers save, from the second epoch on."""
        layers, plan = len(list(self.loaded.model.layers)), self.plan
        frozen = max(layers - self.trained_layers, 0) if self.config.prefix_cache else 0
        later = max(1 - plan.updates_per_epoch / plan.updates, 0.0)
        return later * saved_by_storing(frozen, layers)

    def rate(self, update: int) -> float:
        """The planned rate of update number ``update``, 0 for the first."""
        return float(self.schedule(update))

    def steps_per_eval(self, updates: int) -> int:
        """Updates between two evaluations in a run of ``updates``; a run that has to end on time may change its length."""
        if self.config.max_time is None:
            return self.plan.steps_per_eval
        return steps_per_eval(self.config, updates, self.plan.batch_size, self.plan.valid_rows)

    def warmup_of(self, updates: int) -> int | None:
        """The warmup that the plan of a run of ``updates`` has; None where there is no such plan."""
        with suppress(ConfigError, ScheduleError):
            return resolve_schedule(self.config, self.origins, updates).warmup
        return None

    @property
    def adapter_config(self) -> dict[str, Any]:
        """What mlx-lm needs to rebuild the adapter."""
        config = self.config
        lora = config.lora_parameters.model_dump()
        return adapters.adapter_config(self.loaded.path, config.fine_tune_type, self.trained_layers, lora)


def prepare(
    config: RunConfig,
    origins: Mapping[str, str] | None = None,
    *,
    schedule: ScheduleLike | None = None,
    loaded: LoadedModel | None = None,
    dataset: Dataset | None = None,
    cache: Path | None = None,
    on_progress: OnRows | None = None,
) -> Session:
    """Load model and data, attach the adapter, and plan the run.

    Args:
        config: the settings.
        origins: where each of them comes from, as `mlxsched.config.load_config` returns them.
        schedule: any function of the update index, in place of the config's schedule.
        loaded: a model, in place of the config's. It may have been prepared before: its adapter starts again.
        dataset: rows, in place of the config's.
        cache: keeps tokenized rows and frozen-prefix activations for later runs.
        on_progress: receives the number of rows tokenized so far, and their share of all (None if unknown).

    Raises:
        UserError: something that the user has to fix.
    """
    started = time.monotonic()
    refuse_foreign_adapter(config.adapter_path)
    if dataset is None:
        refuse_missing(config)
    loaded = loaded or load_model(
        config.model, trust_remote_code=config.trust_remote_code, dequantize=config.dequantize
    )
    dataset = dataset or _load_data(config, loaded, cache, on_progress)
    training_rows(dataset)  # refuses a data set without any
    # mlx-lm loads models in evaluation mode, in which gated delta nets use a Metal kernel without a backward pass.
    loaded.model.train()
    config, attached = attach_adapter(config, origins or {}, loaded.model)
    session = plan(config, origins or {}, loaded, dataset, attached, schedule=schedule, cache=cache)
    return replace(session, started=started)


def refuse_missing(config: RunConfig) -> None:
    """Refuse data that is not there, or whose first rows can't be used, before a model is loaded, or even downloaded.

    Raises:
        DataError: there is no such file or directory, no training rows in it, or a bad row at its beginning.
    """
    loading.refuse_missing(config.hf_dataset or config.data, DataOptions.of_run(config))


def training_rows(dataset: Dataset) -> Rows:
    """The training rows of ``dataset``, without which there is nothing to do."""
    if dataset.train is None:
        raise DataError("the data has no training rows. Add a train.jsonl.")
    return dataset.train


def plan(
    config: RunConfig,
    origins: Mapping[str, str],
    loaded: LoadedModel,
    dataset: Dataset,
    attached: Attached,
    *,
    schedule: ScheduleLike | None = None,
    cache: Path | None = None,
) -> Session:
    """Plan the training of a model with ``attached`` on it."""
    rows = training_rows(dataset)
    length = plan_length(config, len(rows), origins)
    resolved = resolve_schedule(config, origins, length.updates, schedule)
    sampler = _sampler(config, rows, length.rows_per_update)
    again = length.updates > length.updates_per_epoch
    memory = plan_memory(config, loaded, rows, sampler, again=again)
    notes = [*loaded.notes, *dataset.notes, *attached.notes]
    notes += [*_fewer_layers(config, attached.layers), *memory.notes(config)]
    findings = [Finding("prepared", "note", text) for text in notes]
    findings += settings_findings(config, origins, resolved.peak)
    findings += snapshot_findings(resolved.schedule, length.updates)
    trained = flatten(loaded.model.trainable_parameters())
    findings += average_findings(config, resolved.schedule, length.updates, trained)
    size = ModelSize(*count_parameters(loaded.model), memory.peak / 1e9)
    made = make_plan(config, length, resolved, _data_size(dataset), size, findings)
    fitted = memory.applied_to(config)
    changed = {key for key in RunConfig.model_fields if getattr(fitted, key) != getattr(config, key)}
    origins = {**origins, **dict.fromkeys(changed, "memory plan")}
    return Session(fitted, origins, loaded, dataset, resolved.schedule, made, attached.layers, memory, cache)


def _load_data(
    config: RunConfig,
    loaded: LoadedModel,
    cache: Path | None,
    on_progress: OnRows | None,
) -> Dataset:
    options = DataOptions.of_run(
        config, max_positions=max_positions(loaded.config), cache_dir=cache / "rows" if cache else None
    )
    return load_dataset(config.hf_dataset or config.data, loaded.tokenizer, options, progress=on_progress)


def _sampler(config: RunConfig, rows: Rows, rows_per_update: int) -> Sampler:
    return Sampler(rows.lengths, rows_per_update, config.seed, config.length_window)


def _data_size(dataset: Dataset) -> DataSize:
    train, valid, test = dataset.train, dataset.valid, dataset.test
    return DataSize(
        rows=len(train) if train else 0,
        valid_rows=len(valid) if valid else 0,
        test_rows=len(test) if test else 0,
        tokens=int(train.lengths.sum()) if train else 0,
        targets=int(train.target_counts.sum(dtype=np.int64)) if train else 0,
    )


def _fewer_layers(config: RunConfig, num_layers: int) -> list[str]:
    if config.num_layers <= num_layers:
        return []
    return [f"the model has {counted(num_layers, 'layer')}: num_layers {config.num_layers} means all"]
