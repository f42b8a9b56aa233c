"""`RunConfig`: the configuration of a run, flat and typed, with mlx-lm's names and meanings where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NotRequired

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from mlxsched.config.average import parse_average
from mlxsched.config.layers import LENGTHS
from mlxsched.config.units import parse_duration, parse_memory, parse_percentage, parse_size
from mlxsched.text import did_you_mean

DEFAULT_EPOCHS = 3.0
DEFAULT_SCHEDULE = "linear"
NESTED = "lora_parameters"  # the one key whose own keys are merged one by one: lora_parameters.rank
MOST = 10**9  # of a count: more would overflow a 32-bit index somewhere below
MOST_RANK = 2**15  # beyond the width of any model, where a LoRA has more parameters than the layer
MOST_SEED = 2**32 - 1  # NumPy's limit, which mlx-lm has too
NO_DECAY = ("adam",)  # optimizers of MLX without a weight decay


def _warmup(value: object) -> object:
    """Distinguish updates from a ratio: 1 and above are updates, a float below 1 is a ratio."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError("must be a number of updates, or a ratio below 1") from None
    if isinstance(value, float) and value >= 1:
        if not value.is_integer():
            raise ValueError("must be a whole number of updates, or a ratio below 1")
        return int(value)
    return value


def _off_at_zero(value: float | None) -> float | None:
    return value or None


def _none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _lower_case(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _texts(value: object) -> Iterator[str]:
    """All text in a plain value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value.keys(), *value.values()])
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _usable_path(value: str) -> str:
    """Refuse what no file system takes, before it fails deep in a library."""
    if not value:
        raise ValueError("must not be empty")
    if max(len(part.encode()) for part in value.split("/")) > 255 or len(value) > 4000:
        raise ValueError("must be a shorter path: at most 255 bytes for each part")
    return value


Size = Annotated[int, Field(ge=0), BeforeValidator(parse_size, json_schema_input_type=int | str)]
Memory = Annotated[int, Field(ge=0), BeforeValidator(parse_memory, json_schema_input_type=int | str)]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(parse_duration, json_schema_input_type=float | str)]
TimeLimit = Annotated[Seconds | None, BeforeValidator(_none, json_schema_input_type=float | str | None)]
Share = Annotated[
    float, Field(gt=0, lt=1), BeforeValidator(parse_percentage, json_schema_input_type=float | str)
]
Warmup = Annotated[int | float, Field(ge=0), BeforeValidator(_warmup)]
Norm = Annotated[float | None, Field(ge=0), AfterValidator(_off_at_zero)]
Batches = Annotated[int, Field(ge=-1, le=MOST)]
Count = Annotated[int, Field(gt=0, le=MOST)]
OptimizerName = Annotated[
    Literal["adam", "adamw", "muon", "sgd", "adafactor", "lion"], BeforeValidator(_lower_case)
]
OPTIMIZATIONS = ("loss-at-targets", "chunks", "blocks", "compile", "allocation-limit")
"""Those without a setting of their own, which ``without`` switches off."""


def _optimizations(text: str) -> str:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in OPTIMIZATIONS:
            hint = did_you_mean(name, OPTIMIZATIONS).strip()
            meant = f" ({hint})" if hint else ""
            raise ValueError(f"must be any of {', '.join(OPTIMIZATIONS)}, separated by commas{meant}")
    return ",".join(names)


Optimizations = Annotated[str, AfterValidator(_optimizations)]
AverageForm = Annotated[str, AfterValidator(lambda text: str(parse_average(text)))]
ReadPath = Annotated[str, AfterValidator(_usable_path)]
WrittenPath = Annotated[str, AfterValidator(_usable_path)]


@with_config(ConfigDict(extra="forbid"))
class LrSchedule(TypedDict):
    """mlx-lm's ``lr_schedule`` block."""

    name: str
    arguments: list[Any]
    warmup: NotRequired[int]
    warmup_init: NotRequired[float]


class _Strict(BaseModel):
    """Refuses unknown keys, NaN and infinity, text that UTF-8 cannot encode, and ``yes`` in place of a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _encodable(cls, value: object) -> object:
        # It would fail later, where run.json is written or the file is opened.
        if any("\0" in text or not _is_utf8(text) for text in _texts(value)):
            raise ValueError("must be text without null characters and lone surrogates")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation not in (
            bool,
            bool | None,
        ):
            raise ValueError("must not be true or false")
        return value


class LoraParameters(_Strict):
    """mlx-lm's ``lora_parameters`` block."""

    rank: int = Field(default=8, gt=0, le=MOST_RANK, description="Rank of the LoRA matrices.")
    scale: float = Field(
        default=20.0, gt=0, description="Factor applied to the output of LoRA: alpha / rank in PEFT."
    )
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout applied to the input of LoRA.")
    keys: list[str] | None = Field(
        default=None, description="Modules to adapt, such as self_attn.q_proj; all linear ones if unset."
    )


class RunConfig(_Strict):
    """Everything that decides a run. Sizes are in bytes, times in seconds, ratios between 0 and 1."""

    # model and data
    description: str = Field(default="", description="What a preset is for.")
    model: ReadPath = Field(
        default="tiny", description="The bundled `tiny`, a local directory or a Hugging Face repository."
    )
    data: ReadPath = Field(
        default="excel",
        description="The bundled `excel`, a directory, a JSONL or CSV file, or a Hugging Face data set.",
    )
    hf_dataset: dict[str, Any] | list[dict[str, Any]] | None = Field(
        default=None, description="mlx-lm's block for a Hugging Face data set."
    )
    text_feature: str = Field(default="text", description="Key of a row's text.")
    chat_feature: str = Field(default="messages", description="Key of a row's chat.")
    prompt_feature: str = Field(default="prompt", description="Key of a row's prompt.")
    completion_feature: str = Field(default="completion", description="Key of a row's answer.")
    train: bool = Field(default=True, description="For mlx-lm's files; `mlxsched train` always trains.")
    mask_prompt: bool = Field(default=True, description="Compute the loss on answers only, not on prompts.")
    max_seq_length: Count = Field(
        default=2048, gt=1, description="Maximum number of tokens in a row; the rest is cut off."
    )
    join_turns: bool = Field(
        default=False,
        description="Join training rows that are a prefix of another row into that row: the same sum of losses for fewer "
        "tokens, but other rows share an update.",
    )
    skip_bad_rows: bool = Field(
        default=False, description="Skip rows that cannot be read instead of failing."
    )
    dequantize: bool = Field(
        default=False, description="Turn the weights of a quantized model into floats when it is loaded."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that comes with the model. Command line only."
    )

    # parameters
    fine_tune_type: Literal["lora", "dora", "full"] = Field(
        default="lora", description="Train a LoRA, a DoRA, or the weights themselves."
    )
    num_layers: Annotated[int, Field(ge=-1, le=MOST)] = Field(
        default=-1, description="Number of layers to train, counted from the last; -1 or 0 for all."
    )
    lora_parameters: LoraParameters = Field(
        default=LoraParameters(), description="Rank, scale, dropout and keys of LoRA."
    )
    lora_plus_ratio: float = Field(
        default=1.0, gt=0, description="LoRA+: ratio of the learning rate of the B matrices to that of A."
    )
    resume_adapter_file: ReadPath | None = Field(
        default=None, description="Adapter weights to start from, with a new optimizer and schedule."
    )

    # length
    epochs: float | None = Field(
        default=None, gt=0, le=MOST, description="Passes over the data, 0.5 for half of it; 3 if unset."
    )
    iters: Count | None = Field(
        default=None, description="Length in iterations of --batch-size rows, as in mlx-lm."
    )
    steps: Count | None = Field(default=None, description="Length in updates.")
    max_time: TimeLimit = Field(
        default=None,
        description="End after this time, such as 45m, with the schedule completed; none removes a limit.",
    )
    until_plateau: bool = Field(
        default=False,
        description="Hold the rate until the validation loss stops improving, then cool down and end.",
    )
    batch_size: Count = Field(
        default=8, description="Rows per iteration; without accumulation, rows per update."
    )
    grad_accumulation_steps: Count = Field(default=1, description="Iterations per update.")
    length_window: Count = Field(
        default=1,
        description="Group rows of similar length within this many updates; 1 keeps the random order. "
        "Less padding, but a higher loss.",
    )
    micro_batch_tokens: Count | None = Field(
        default=None, description="Maximum number of padded tokens per forward pass; planned if unset."
    )
    seed: Annotated[int, Field(ge=0, le=MOST_SEED)] = Field(
        default=0, description="Seed of the initialization, the order of the rows, dropout and the split."
    )

    # learning rate
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    schedule: str | dict[str, Any] | None = Field(
        default=None, description='A name such as cosine, or a spec such as "wsd(decay=0.1)".'
    )
    warmup: Warmup = Field(default=0.03, description="Warmup in updates, or a ratio of the run below 1.")
    warmup_init: float | None = Field(
        default=None,
        ge=0,
        description="Learning rate of the first update, where the warmup starts; 0 if unset.",
    )
    end_lr: float = Field(default=0.0, ge=0, description="Learning rate at the end of the run.")
    lr_schedule: LrSchedule | None = Field(
        default=None, description="mlx-lm's schedule block; gives exactly mlx-lm's values."
    )

    # optimizer
    optimizer: OptimizerName = Field(default="adamw", description="Optimizer.")
    optimizer_config: dict[OptimizerName, dict[str, Any] | None] = Field(
        default={}, description="Arguments of the optimizer, under its name."
    )
    weight_decay: float | None = Field(
        default=None, ge=0, description="Weight decay; the optimizer's own default if unset."
    )
    bias_correction: bool = Field(
        default=True, description="Correct the bias of Adam's moments in early updates; mlx-lm does not."
    )
    max_grad_norm: Norm = Field(default=1.0, description="Clip the gradient to this norm; 0 turns it off.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of each target that is spread over the vocabulary."
    )
    z_loss: float = Field(default=0.0, ge=0, description="Weight of the squared log-partition function.")
    max_bad_updates: Count = Field(
        default=5, description="Consecutive non-finite updates after which the run fails."
    )
    on_divergence: Literal["stop", "halve"] = Field(
        default="stop", description="When the run diverges: stop, or roll back and halve the rate."
    )

    # evaluation and reports
    val_batches: Batches = Field(
        default=-1, description="Batches per validation; -1 for the whole validation set."
    )
    steps_per_eval: Count | None = Field(
        default=None, description="Updates between validations; planned if unset."
    )
    steps_per_report: Count = Field(default=10, description="Updates between progress lines.")
    patience: Count | None = Field(
        default=None, description="Stop after this many validations without a new best loss."
    )
    average: AverageForm | None = Field(
        default=None,
        description="Also average the adapters, and use the better one: last:K, cycles, ema:DECAY or merge:SHAPE:K.",
    )
    average_every: Count | None = Field(
        default=None, description="Updates between the points of an average; planned if unset."
    )
    test: bool = Field(default=False, description="Evaluate on the test set before and after training.")
    test_batches: Batches = Field(default=-1, description="Test batches; -1 for the whole test set.")
    report_to: str | None = Field(
        default=None, description="Trackers: tensorboard, trackio, wandb, swanlab, mlflow."
    )
    project_name: str | None = Field(default=None, description="Project name at the tracker.")

    # run directory
    run_dir: WrittenPath | None = Field(default=None, description="Directory of the run; runs/NAME if unset.")
    name: str | None = Field(
        default=None,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the run.",
    )
    adapter_path: WrittenPath | None = Field(
        default=None, description="Directory for a second copy of the adapter, as in mlx-lm."
    )
    save_every: Count = Field(default=100, description="Updates between checkpoints.")
    save_minutes: float | None = Field(
        default=None, gt=0, description="Minutes between checkpoints, if sooner than save_every."
    )
    keep_last: Count = Field(default=3, description="Number of checkpoints to keep.")

    # machine
    fast: bool = Field(
        default=True,
        description="Use the optimizations, which do not change results; --no-fast turns them off.",
    )
    without: Optimizations = Field(
        default="",
        description="Optimizations to disable, separated by commas: loss-at-targets, chunks (of the cross-entropy), blocks "
        "(of attention), compile, allocation-limit (of MLX, with --grad-checkpoint on a CPU).",
    )
    tune: bool = Field(
        default=True,
        description="Time the optimizations on this device at the start of a run that is long enough to benefit; "
        "--no-tune takes the defaults.",
    )
    packing: bool | None = Field(
        default=None, description="Pack short rows into sequences; planned if unset."
    )
    share_prompts: bool | None = Field(
        default=None,
        description="Compute the common prefix of rows only once; planned if unset.",
    )
    stochastic_rounding: bool = Field(
        default=False,
        description="Full fine-tuning in bf16 without float32 copies of the weights: less memory; planned if needed.",
    )
    grad_checkpoint: bool = Field(
        default=False, description="Recompute activations in the backward pass: slower, less memory."
    )
    checkpoint_every: Count = Field(
        default=1, description="With --grad-checkpoint, recompute every n-th layer only."
    )
    prefix_cache: Size = Field(
        default=512_000_000,
        description="Memory for cached activations of the frozen layers; the rest goes to disk; "
        "0 turns the cache off.",
    )
    memory: Memory | None = Field(default=None, description="Memory limit of the run, such as 6GB.")
    cache_limit: Size | None = Field(default=None, description="Limit of MLX's cache of free buffers.")
    wired_limit: Size | None = Field(default=None, description="Limit of the memory that macOS keeps wired.")
    clear_cache_threshold: Size = Field(
        default=0, description="Clear MLX's cache when it is larger than this; 0 for never."
    )
    keep_awake: bool = Field(default=True, description="Prevent the machine from sleeping.")
    pause_below: Share | None = Field(
        default=None, description="Pause while the battery is below this charge, such as 20%."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Fill in the two defaults that apply only if their rival is not given."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if all(data.get(key) is None for key in LENGTHS):
            data["epochs"] = DEFAULT_EPOCHS
        if data.get("lr_schedule") is None and data.get("schedule") is None:
            data["schedule"] = DEFAULT_SCHEDULE
        return data

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> RunConfig:
        given = [key for key in LENGTHS if getattr(self, key) is not None]
        if len(given) > 1:
            first, second = given[:2]
            why = f"give {first} or {second}, not both: both say how long to train"
            raise _conflict(first, second, why)
        if self.schedule is not None and self.lr_schedule is not None:
            why = "give schedule or lr_schedule, not both: both say how the learning rate changes"
            raise _conflict("schedule", "lr_schedule", why)
        if self.weight_decay and self.optimizer in NO_DECAY:
            why = f"{self.optimizer} has no weight decay; use optimizer adamw, or leave out weight_decay"
            raise _conflict("weight_decay", "optimizer", why)
        return self

    @property
    def optimizer_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the optimizer: its block of ``optimizer_config``, and ``weight_decay``."""
        arguments = dict(self.optimizer_config.get(self.optimizer) or {})
        return arguments if self.weight_decay is None else {**arguments, "weight_decay": self.weight_decay}

    @property
    def shares_prompts(self) -> bool:
        """Whether what rows begin with in common may be computed once."""
        return self.fast and self.share_prompts is not False

    @property
    def names_run(self) -> bool:
        """Whether the directory of the run is given, by its path or its name; otherwise it gets a number."""
        return bool(self.run_dir or self.name)

    @property
    def left_out(self) -> frozenset[str]:
        """The names in ``without``."""
        return frozenset(self.without.split(",")) - {""}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in JSON; ``RunConfig(**values)`` reads them back."""
        return self.model_dump(mode="json")


def _conflict(first: str, second: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(
        "conflict", "{message}", {"first": first, "second": second, "message": message}
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a config file, for completion and checks in editors."""
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["preset"] = {"type": "string", "description": "A preset to start from."}
    return schema
