"""Everything that a training needs, made ready and planned before the first update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mlxsched.config.schema import RunConfig
from mlxsched.data import DataOptions, Dataset, Features, load_dataset
from mlxsched.data.batching.plan import BatchingPlan
from mlxsched.data.batching.sampler import Sampler
from mlxsched.data.rows import Rows
from mlxsched.errors import ConfigError, DataError
from mlxsched.model import adapters
from mlxsched.model.load import LoadedModel, count_parameters, load_model
from mlxsched.planning import plan as planning
from mlxsched.text import counted
from mlxsched.training.memory_plan import MemoryPlan, batching_plan, plan_memory

ScheduleLike = Callable[[int], Any]


@dataclass(frozen=True)
class Session:
    """A run that has been planned and not yet started."""

    config: RunConfig
    origins: Mapping[str, str]
    loaded: LoadedModel
    dataset: Dataset
    train_rows: Rows
    schedule: ScheduleLike
    length: planning.Length
    plan: planning.Plan
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
    loaded = loaded or load_model(config.model, trust_remote_code=config.trust_remote_code)
    dataset = dataset or _load_data(config, loaded, cache_dir, on_progress)
    if dataset.train is None:
        raise DataError(f"{config.data} has no training rows. Add a train.jsonl.")
    lora = config.lora_parameters.model_dump()
    num_layers = adapters.attach(loaded.model, config.fine_tune_type, config.num_layers, lora, config.seed)
    if config.resume_adapter_file:
        adapters.load_weights(loaded.model, Path(config.resume_adapter_file).expanduser())
    length = plan_length(config, len(dataset.train))
    schedule, notes, warnings = _plan_schedule(config, origins, length.updates, schedule)
    again = length.updates > length.updates_per_epoch
    order = _order(config, dataset.train, length)
    memory = plan_memory(config, loaded, dataset.train, order, again=again)
    notes += [*_fewer_layers(config, num_layers), *memory.notes(config)]
    plan = _plan(config, loaded, dataset, dataset.train, length, schedule, memory, notes, warnings)
    fitted = memory.applied_to(config)
    changed = {key for key in RunConfig.model_fields if getattr(fitted, key) != getattr(config, key)}
    origins = {**origins, **dict.fromkeys(changed, "memory plan")}
    planned = Session(
        fitted, origins, loaded, dataset, dataset.train, schedule, length, plan, num_layers, memory
    )
    return replace(planned, states_dir=states_dir)


def _load_data(
    config: RunConfig,
    loaded: LoadedModel,
    cache_dir: Path | None,
    on_progress: Callable[[int], None] | None,
) -> Dataset:
    source = config.hf_dataset or config.data
    return load_dataset(source, loaded.tokenizer, data_options(config, cache_dir), progress=on_progress)


def data_options(config: RunConfig, cache_dir: Path | None = None) -> DataOptions:
    """The part of a config that says how rows become tokens."""
    return DataOptions(
        mask_prompt=config.mask_prompt,
        max_seq_length=config.max_seq_length,
        skip_bad_rows=config.skip_bad_rows,
        seed=config.seed,
        features=Features(
            config.text_feature, config.chat_feature, config.prompt_feature, config.completion_feature
        ),
        cache_dir=cache_dir,
        trust_remote_code=config.trust_remote_code,
    )


def _order(config: RunConfig, rows: Rows, length: planning.Length) -> Sampler:
    return Sampler(rows.lengths, length.rows_per_update, config.seed, config.length_window)


def plan_length(config: RunConfig, rows: int) -> planning.Length:
    """Updates of the run, from epochs or from mlx-lm's iterations."""
    sizes = (config.batch_size, config.grad_accumulation_steps)
    if config.iters is not None:
        return planning.length_from_iters(rows, config.iters, *sizes)
    return planning.length_from_epochs(rows, config.epochs or 1.0, *sizes)


def _plan_schedule(
    config: RunConfig, origins: Mapping[str, str], updates: int, given: ScheduleLike | None
) -> tuple[ScheduleLike, list[str], list[str]]:
    """The schedule of the run, ``given`` or the config's, with notes and warnings about it."""
    warmup, notes = plan_warmup(config, origins, updates)
    notes += _surprises(config, origins)
    schedule = given or make_schedule(config, updates, warmup)
    warnings = _schedule_warnings(schedule, updates)
    if given is None and config.lr_schedule is None:
        notes += _without_effect(config, origins, updates, warmup)
        warnings += _end_above_peak(config, schedule, updates)
    return schedule, notes, warnings


def plan_warmup(config: RunConfig, origins: Mapping[str, str], updates: int) -> tuple[int | float, list[str]]:
    """The warmup that fits, and what to say of it.

    A preset's is shortened to a tenth of the run, one's own is taken at its word. Where nobody chose one,
    a family with a warmup of its own, such as one_cycle, keeps that: 0 here.
    """
    from mlxsched.schedules.defaults import has_own_warmup

    if origins.get("warmup", "default") == "default" and has_own_warmup(config.schedule):
        return 0, []
    if origins.get("warmup", "default").startswith(("preset", "default")):
        warmup, shortened = planning.shorten_warmup(config.warmup, updates)
        return warmup, [shortened] if shortened else []
    if config.warmup >= updates:
        raise ConfigError(_warmup_too_long(config.warmup, updates, origins["warmup"]))
    return config.warmup, []


def _warmup_too_long(warmup: int | float, updates: int, origin: str) -> str:
    told = f"`warmup` must be below `steps`; got {warmup} and {updates}. Lower --warmup or raise --epochs."
    if origin.startswith("-"):
        return told
    return (
        f"{origin}: {told} In a preset it is cut to a tenth of the run, in a file of your own it is taken at "
        "its word: write the ratio `warmup: 0.1` for that."
    )


def _surprises(config: RunConfig, origins: Mapping[str, str]) -> list[str]:
    """What a user of mlx-lm might not expect of a file that runs in both."""
    said = []
    if config.report_to:
        said.append(
            f"nothing is sent to {config.report_to}: trackers are not built yet; metrics.jsonl has it all"
        )
    from_file = any(":" in origin for origin in origins.values())
    if from_file and config.lr_schedule is None and origins.get("schedule") == "default":
        said.append(
            "the file names no schedule, so the rate falls in a line to 0, where mlx-lm would hold it; "
            "`schedule: constant` does that"
        )
    return said


def make_schedule(config: RunConfig, updates: int, warmup: int | float) -> ScheduleLike:
    """The schedule of a config over ``updates`` updates."""
    from mlxsched.schedules import for_run

    if config.lr_schedule is not None:
        from mlxsched.schedules.compat.mlx_lm import from_mlx_lm

        return from_mlx_lm(dict(config.lr_schedule))
    return for_run(
        config.schedule or "linear",
        peak=config.learning_rate,
        steps=updates,
        warmup=warmup,
        end=config.end_lr,
    )


def _fewer_layers(config: RunConfig, num_layers: int) -> list[str]:
    if config.num_layers <= num_layers:
        return []
    return [f"the model has {counted(num_layers, 'layer')}: num_layers {config.num_layers} means all"]


def _without_effect(
    config: RunConfig, origins: Mapping[str, str], updates: int, warmup: int | float
) -> list[str]:
    """Notes on settings of the rate that were given, and that the schedule goes without."""
    # A value that could be another one, with the same schedule coming of it, is not used.
    others = {
        "learning_rate": 2 * config.learning_rate,
        "end_lr": (config.end_lr or config.learning_rate) / 2,
    }
    others |= {"warmup": 0} if warmup else {}
    used = describe_schedule(make_schedule(config, updates, warmup))
    notes = []
    for key, value in others.items():
        if origins.get(key, "default").startswith(("preset", "default")):
            continue
        other = config.model_copy(update={key: value})
        if describe_schedule(make_schedule(other, updates, 0 if key == "warmup" else warmup)) == used:
            notes.append(
                f"{key} ({origins[key]}) has no effect: the schedule {config.schedule!r} has its own, or none"
            )
    return notes


def _end_above_peak(config: RunConfig, schedule: ScheduleLike, updates: int) -> list[str]:
    if float(schedule(updates)) <= config.learning_rate or config.end_lr <= config.learning_rate:
        return []
    return [
        f"end_lr {config.end_lr:g} is above the peak of {config.learning_rate:g}: the rate rises up to the end "
        "of the run. Lower --end-lr"
    ]


def warmup_updates(schedule: ScheduleLike) -> int:
    """Where the warmup of a schedule ends, 0 without one."""
    phases = getattr(schedule, "phases", ())
    return int(phases[0].end) if phases and phases[0].name == "warmup" else 0


def _plan(
    config: RunConfig,
    loaded: LoadedModel,
    dataset: Dataset,
    rows: Rows,
    length: planning.Length,
    schedule: ScheduleLike,
    memory: MemoryPlan,
    notes: list[str],
    warnings: list[str],
) -> planning.Plan:
    valid, test = (0 if split is None else len(split) for split in (dataset.valid, dataset.test))
    evaluation_rows = valid if config.val_batches < 0 else min(valid, config.val_batches * config.batch_size)
    parameters, trainable = count_parameters(loaded.model)
    steps_per_eval = config.steps_per_eval or planning.evaluation_interval(
        length.updates, length.rows_per_update, evaluation_rows
    )
    return planning.Plan(
        rows=len(rows),
        valid_rows=valid,
        test_rows=test,
        updates=length.updates,
        epochs=round(length.epochs, 4),
        updates_per_epoch=length.updates_per_epoch,
        batch_size=length.rows_per_update,
        length_window=config.length_window,
        last_rows=length.last_rows,
        tokens=int(rows.lengths.sum()),
        targets=int(rows.target_counts.sum()),
        schedule=describe_schedule(schedule),
        warmup=warmup_updates(schedule),
        peak=max(float(schedule(step)) for step in planning.probe(length.updates)),
        steps_per_eval=steps_per_eval,
        save_every=config.save_every,
        parameters=parameters,
        trainable=trainable,
        peak_memory_gb=round(memory.peak / 1e9, 3),
        notes=[*loaded.notes, *dataset.notes, *notes],
        warnings=[*length.warnings, *warnings],
    )


def _schedule_warnings(schedule: ScheduleLike, updates: int) -> list[str]:
    steps = getattr(schedule, "steps", None)
    return planning.schedule_warnings(lambda step: float(schedule(step)), steps, updates)


def describe_schedule(schedule: ScheduleLike) -> dict[str, Any]:
    """The dictionary form of a schedule; of a user's own function, its name."""
    to_dict = getattr(schedule, "to_dict", None)
    return dict(to_dict()) if to_dict else {"name": getattr(schedule, "__name__", type(schedule).__name__)}
