"""The configuration of a run: flat, typed, with mlx-lm's names and meanings wherever mlx-lm has them."""

from __future__ import annotations

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

from mlxsched.config.units import parse_duration, parse_percentage, parse_size

DEFAULT_EPOCHS = 3.0
DEFAULT_SCHEDULE = "linear"
NESTED = "lora_parameters"  # the one key whose own keys merge one by one: lora_parameters.rank


def _warmup(value: object) -> object:
    """Tell updates from a ratio: 1 and above are updates, a float below 1 is a ratio."""
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


Size = Annotated[int, Field(ge=0), BeforeValidator(parse_size, json_schema_input_type=int | str)]
Seconds = Annotated[float, Field(gt=0), BeforeValidator(parse_duration, json_schema_input_type=float | str)]
Share = Annotated[
    float, Field(gt=0, lt=1), BeforeValidator(parse_percentage, json_schema_input_type=float | str)
]
Warmup = Annotated[int | float, Field(ge=0), BeforeValidator(_warmup)]
Norm = Annotated[float | None, Field(ge=0), AfterValidator(_off_at_zero)]
Batches = Annotated[int, Field(ge=-1)]


@with_config(ConfigDict(extra="forbid"))
class LrSchedule(TypedDict):
    """mlx-lm's ``lr_schedule`` block."""

    name: str
    arguments: list[Any]
    warmup: NotRequired[int]
    warmup_init: NotRequired[float]


class _Strict(BaseModel):
    """Refuses unknown keys, NaN and infinity, and ``yes`` where a number belongs."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)

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

    rank: int = Field(default=8, gt=0, description="Rank of the LoRA matrices.")
    scale: float = Field(default=20.0, gt=0, description="Factor on what LoRA adds.")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    keys: list[str] | None = Field(
        default=None, description="Layers to adapt, such as self_attn.q_proj; all if unset."
    )


class RunConfig(_Strict):
    """Everything that decides a run. Sizes are bytes, times seconds, ratios between 0 and 1."""

    # what to train on what
    description: str = Field(default="", description="What a preset is for.")
    model: str = Field(
        default="tiny", description="The bundled `tiny`, a local directory or a Hugging Face repository."
    )
    data: str = Field(
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
    train: bool = Field(default=True, description="Accepted for mlx-lm's sake; `mlxsched train` trains.")
    mask_prompt: bool = Field(default=True, description="Score answers only, not prompts.")
    max_seq_length: int = Field(default=2048, gt=1, description="Tokens a row may have; more are cut off.")
    skip_bad_rows: bool = Field(
        default=False, description="Leave out rows that cannot be read instead of stopping."
    )
    dequantize: bool = Field(
        default=False, description="Turn the weights of a quantized model into floats when it is loaded."
    )
    trust_remote_code: bool = Field(
        default=False, description="Let the model's repository run its own tokenizer code."
    )

    # what to change in the model
    fine_tune_type: Literal["lora", "dora", "full"] = Field(default="lora", description="What to train.")
    num_layers: int = Field(
        default=-1, ge=-1, description="Layers to train, counted from the last; -1 for all."
    )
    lora_parameters: LoraParameters = Field(
        default=LoraParameters(), description="Rank, scale, dropout and keys of LoRA."
    )
    lora_plus_ratio: float = Field(default=1.0, gt=0, description="LoRA+: rate of B over rate of A.")
    resume_adapter_file: str | None = Field(default=None, description="Adapter weights to start from.")

    # how long, and how much at a time
    epochs: float | None = Field(
        default=None, gt=0, description="Passes over the data, may be a fraction; 3 if unset."
    )
    iters: int | None = Field(
        default=None, gt=0, description="Length as mlx-lm has it: iterations of --batch-size rows."
    )
    max_time: Seconds | None = Field(default=None, description="End the run by then, such as 10m or 2h.")
    batch_size: int = Field(
        default=8, gt=0, description="Rows of an iteration; of an update, without accumulation."
    )
    grad_accumulation_steps: int = Field(default=1, gt=0, description="Iterations that make one update.")
    length_window: int = Field(
        default=1, gt=0, description="Updates that share out their rows by length; 1 for none."
    )
    micro_batch_tokens: int | None = Field(
        default=None, gt=0, description="Padded tokens that go through at once."
    )
    seed: int = Field(default=0, ge=0, description="Seed of initialisation, order and split.")

    # the learning rate
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    schedule: str | dict[str, Any] | None = Field(
        default=None, description="A family such as linear, or a full schedule."
    )
    warmup: Warmup = Field(default=0.03, description="Updates of warmup, or a ratio below 1.")
    end_lr: float = Field(default=0.0, ge=0, description="Learning rate at the end.")
    lr_schedule: LrSchedule | None = Field(default=None, description="mlx-lm's block; gives mlx-lm's values.")

    # the update
    optimizer: Literal["adam", "adamw", "muon", "sgd", "adafactor", "lion"] = Field(
        default="adamw", description="Optimizer."
    )
    optimizer_config: dict[str, dict[str, Any] | None] = Field(
        default={}, description="Arguments of the optimizer, under its name."
    )
    bias_correction: bool = Field(default=True, description="Correct Adam's early moments.")
    max_grad_norm: Norm = Field(default=1.0, description="Clip the gradient to this norm; 0 for never.")
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of a target spread over the vocabulary."
    )
    z_loss: float = Field(default=0.0, ge=0, description="Weight of the squared log-normaliser.")
    max_bad_updates: int = Field(default=5, gt=0, description="Non-finite updates in a row that end the run.")
    on_divergence: Literal["stop", "halve"] = Field(
        default="stop", description="What to do when it diverges."
    )

    # evaluation and reports
    val_batches: Batches = Field(default=-1, description="Validation batches; -1 for the whole set.")
    steps_per_eval: int | None = Field(
        default=None, gt=0, description="Updates between evaluations; planned if unset."
    )
    steps_per_report: int = Field(default=10, gt=0, description="Updates between report lines.")
    patience: int | None = Field(
        default=None, gt=0, description="Evaluations without a new best that end the run."
    )
    test: bool = Field(default=False, description="Evaluate on the test set at the end.")
    test_batches: Batches = Field(default=-1, description="Test batches; -1 for the whole set.")
    report_to: str | None = Field(
        default=None, description="Accepted for mlx-lm's sake; trackers are not built yet."
    )
    project_name: str | None = Field(default=None, description="Project name at the trackers.")

    # the run directory
    run_dir: str | None = Field(default=None, description="Directory of the run; runs/NAME if unset.")
    name: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Name of the run."
    )
    adapter_path: str | None = Field(default=None, description="Write the adapter here too, as mlx-lm does.")
    save_every: int = Field(default=100, gt=0, description="Updates between checkpoints.")
    save_minutes: float | None = Field(
        default=None, gt=0, description="Minutes between checkpoints, if that is sooner."
    )
    keep_last: int = Field(default=3, gt=0, description="Checkpoints to keep.")

    # the machine
    fast: bool = Field(default=True, description="Use the exact short cuts; --no-fast for the plain path.")
    packing: bool | None = Field(
        default=None,
        description="Several short rows in a line; by default where that is predicted to be faster.",
    )
    grad_checkpoint: bool = Field(default=False, description="Trade time for memory.")
    checkpoint_every: int = Field(
        default=1, gt=0, description="With grad_checkpoint: only every so many-th layer."
    )
    prefix_cache: Size = Field(
        default=512_000_000,
        description="Memory for the outputs of frozen layers, beyond which they go on disk; 0 keeps none.",
    )
    memory: Size | None = Field(default=None, description="Memory to stay within, such as 6GB.")
    cache_limit: Size | None = Field(default=None, description="Limit of MLX's cache of free buffers.")
    wired_limit: Size | None = Field(default=None, description="Limit of the memory that macOS keeps wired.")
    clear_cache_threshold: Size = Field(
        default=0, description="Empty MLX's cache above this size; 0 for never."
    )
    keep_awake: bool = Field(default=True, description="Keep the machine from sleeping.")
    pause_below: Share | None = Field(
        default=None, description="Pause when the battery is below, such as 20%."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, data: Any) -> Any:
        """Fill in the two defaults that hold only as long as their rival is not given."""
        if not isinstance(data, dict):
            return data
        data = dict(data)
        if data.get("iters") is None and data.get("epochs") is None:
            data["epochs"] = DEFAULT_EPOCHS
        if data.get("lr_schedule") is None and data.get("schedule") is None:
            data["schedule"] = DEFAULT_SCHEDULE
        return data

    @model_validator(mode="after")
    def _refuse_rivals(self) -> RunConfig:
        if self.epochs is not None and self.iters is not None:
            raise _rivals("epochs", "iters", "both say how long to train")
        if self.schedule is not None and self.lr_schedule is not None:
            raise _rivals("schedule", "lr_schedule", "both say how the learning rate moves")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as JSON has them; ``RunConfig(**values)`` takes them back."""
        return self.model_dump(mode="json")


def _rivals(first: str, second: str, why: str) -> PydanticCustomError:
    return PydanticCustomError(
        "rivals", "give {first} or {second}, not both: {why}", {"first": first, "second": second, "why": why}
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, with which editors complete and check it."""
    schema = RunConfig.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["properties"]["preset"] = {"type": "string", "description": "A preset to start from."}
    return schema
