"""Everything that a training needs, made ready and planned before the first update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlxsched.analysis.findings import Finding
from mlxsched.config.schema import RunConfig
from mlxsched.data import DataOptions, Dataset, load_dataset
from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.errors import DataError
from mlxsched.model import adapters
from mlxsched.model.load import LoadedModel, count_parameters, load_model, max_positions
from mlxsched.planning.length import Length, plan_length
from mlxsched.planning.plan import DataSize, ModelSize, Plan, make_plan
from mlxsched.planning.schedule import ScheduleLike, resolve_schedule
from mlxsched.planning.settings import settings_findings
from mlxsched.text import counted
from mlxsched.training.memory_plan import MemoryPlan, batching_plan, plan_memory


@dataclass(frozen=True)
class Session:
    """A run that has been planned and not yet started."""

    config: RunConfig
    origins: Mapping[str, str]
    loaded: LoadedModel
    dataset: Dataset
    train_rows: Rows
    schedule: ScheduleLike
    length: Length
    plan: Plan
    num_layers: int
    memory: MemoryPlan
    states_dir: Path | None = None  # of outputs of frozen layers that later runs may use

    @property
    def micro_batch_tokens(self) -> int:
        """Padded tokens that go through the model at once, at most."""
        return self.memory.micro_batch_tokens

    @cached_property
    def order(self) -> Sampler:
        """Which training rows each update holds."""
        return _order(self.config, self.train_rows, self.length)

    @cached_property
    def cut(self) -> BatchingPlan:
        """How those become micro-batches, unless the self-check finds packing wrong for the model."""
        return batching_plan(self.config, self.order, self.micro_batch_tokens)

    def rate(self, update: int) -> float:
        """The learning rate of update number ``update`` (0 for the first) as a float."""
        return float(self.schedule(update))

    @property
    def adapter_config(self) -> dict[str, Any]:
        """What mlx-lm needs to rebuild the adapter."""
        config = self.config
        return adapters.adapter_config(
            self.loaded.path, config.fine_tune_type, self.num_layers, config.lora_parameters.model_dump()
        )


def prepare(
    config: RunConfig,
    origins: Mapping[str, str] | None = None,
    *,
    schedule: ScheduleLike | None = None,
    loaded: LoadedModel | None = None,
    dataset: Dataset | None = None,
    cache_dir: Path | None = None,
    states_dir: Path | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Session:
    """Load model and data, attach what is trained, and plan the run.

    ``schedule`` (any callable of the update index), ``loaded`` and ``dataset`` go before the config's;
    ``cache_dir`` keeps tokenized rows for later runs and ``states_dir`` outputs of frozen layers;
    ``on_progress`` is told how many rows have been tokenized. Raises a ``UserError`` for whatever
    the user has to mend.
    """
    origins = origins or {}
    loaded = loaded or load_model(
        config.model, trust_remote_code=config.trust_remote_code, dequantize=config.dequantize
    )
    dataset = dataset or _load_data(config, loaded, cache_dir, on_progress)
    if dataset.train is None:
        raise DataError(f"{config.data} has no training rows. Add a train.jsonl.")
    lora = config.lora_parameters.model_dump()
    attached = adapters.attach(loaded.model, config.fine_tune_type, config.num_layers, lora, config.seed)
    num_layers = attached.layers
    if (
        attached.keys
    ):  # not all of mlx-lm's default keys work: say so in the run, and to whoever loads the adapter
        lora_parameters = config.lora_parameters.model_copy(update={"keys": list(attached.keys)})
        config = config.model_copy(update={"lora_parameters": lora_parameters})
    if config.resume_adapter_file:
        adapters.load_weights(loaded.model, Path(config.resume_adapter_file).expanduser())
    length = plan_length(config, len(dataset.train))
    resolved = resolve_schedule(config, origins, length.updates, schedule)
    again = length.updates > length.updates_per_epoch
    order = _order(config, dataset.train, length)
    memory = plan_memory(config, loaded, dataset.train, order, again=again)
    notes = [
        *loaded.notes,
        *dataset.notes,
        *attached.notes,
        *_fewer_layers(config, num_layers),
        *memory.notes(config),
    ]
    findings = [Finding("prepared", "note", text) for text in notes]
    findings += settings_findings(config, origins, resolved.peak)
    size = ModelSize(*count_parameters(loaded.model), memory.peak / 1e9)
    plan = make_plan(config, length, resolved, _data_size(dataset), size, findings)
    fitted = memory.applied_to(config)
    changed = {key for key in RunConfig.model_fields if getattr(fitted, key) != getattr(config, key)}
    origins = {**origins, **dict.fromkeys(changed, "memory plan")}
    planned = Session(
        fitted, origins, loaded, dataset, dataset.train, resolved.schedule, length, plan, num_layers, memory
    )
    return replace(planned, states_dir=states_dir)


def _load_data(
    config: RunConfig,
    loaded: LoadedModel,
    cache_dir: Path | None,
    on_progress: Callable[[int], None] | None,
) -> Dataset:
    options = DataOptions.of_run(config, max_positions=max_positions(loaded.config), cache_dir=cache_dir)
    return load_dataset(config.hf_dataset or config.data, loaded.tokenizer, options, progress=on_progress)


def _order(config: RunConfig, rows: Rows, length: Length) -> Sampler:
    return Sampler(rows.lengths, length.rows_per_update, config.seed, config.length_window)


def _data_size(dataset: Dataset) -> DataSize:
    train, valid, test = dataset.train, dataset.valid, dataset.test
    return DataSize(
        rows=len(train) if train else 0,
        valid_rows=len(valid) if valid else 0,
        test_rows=len(test) if test else 0,
        tokens=int(train.lengths.sum()) if train else 0,
        targets=int(train.target_counts.sum()) if train else 0,
    )


def _fewer_layers(config: RunConfig, num_layers: int) -> list[str]:
    if config.num_layers <= num_layers:
        return []
    return [f"the model has {counted(num_layers, 'layer')}: num_layers {config.num_layers} means all"]
