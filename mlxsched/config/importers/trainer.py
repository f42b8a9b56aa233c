"""transformers' ``Trainer``: the names that TrainingArguments, TRL, axolotl and LLaMA-Factory share.

The rules read transformers' names; a `Draft` knows how the tool at hand spells them.
"""

from __future__ import annotations

import re
from typing import Any

from mlxsched.config.importers.draft import Draft
from mlxsched.errors import ScheduleError

DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "num_train_epochs": 3.0,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "optim": "adamw_torch",
    "seed": 42,
}
"""What transformers does by default, where that decides the run and differs from our defaults or could."""

ADAMW_8BIT = "the moments are kept in float32: they are small for a LoRA"
OPTIMIZERS = {  # the beginning of transformers' name -> ours; longer beginnings first
    "paged_adamw": "adamw",
    "paged_lion": "lion",
    "adamw": "adamw",
    "adafactor": "adafactor",
    "lion": "lion",
    "muon": "muon",
    "sgd": "sgd",
}
OWN_CONSTANTS = ("rex", "one_cycle")  # axolotl's; its constants differ from those of the papers
REPORTERS = {"tensorboard", "trackio", "wandb", "swanlab", "mlflow"}
_MOMENTS = ["adam_beta1", "adam_beta2", "adam_epsilon"]
_ANY_LENGTH = (
    10**9
)  # updates: arguments that fit a run of this length are checked when the real length is known
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def convert_trainer(draft: Draft) -> None:
    """Convert what decides a run of the ``Trainer``."""
    _length(draft)
    _learning_rate(draft)
    _optimizer(draft)
    _update(draft)
    _evaluation(draft)
    _saving(draft)
    _reports(draft)
    if (seed := draft.whole("seed")) is not None:
        draft.put("seed", seed, "seed")


def _length(draft: Draft) -> None:
    """Rows of an update, and the length. transformers counts updates, mlx-lm and ``iters`` count micro-batches."""
    accumulation = draft.whole("gradient_accumulation_steps") or 1
    if rows := draft.whole("per_device_train_batch_size"):
        draft.put("batch_size", rows, "per_device_train_batch_size", "rows of one device")
    if accumulation != 1 or draft.given("gradient_accumulation_steps"):
        draft.put("grad_accumulation_steps", accumulation, "gradient_accumulation_steps")
    updates = draft.whole("max_steps")
    if updates is not None and updates > 0:
        note = f"{updates} updates of {accumulation} iterations" if accumulation > 1 else ""
        draft.put("iters", updates * accumulation, "max_steps", note)
        draft.leave("num_train_epochs", "max_steps decides the length")
    elif epochs := draft.number("num_train_epochs"):
        draft.put("epochs", epochs, "num_train_epochs")


# The learning rate


def _learning_rate(draft: Draft) -> None:
    peak = draft.number("learning_rate")
    if peak is not None:
        if peak <= 0:
            raise draft.error("learning_rate", f"must be above 0; got {peak:g}.")
        draft.put("learning_rate", peak, "learning_rate")
    kind = str(draft.take("lr_scheduler_type") or "linear").rpartition(".")[2].lower()
    arguments = draft.take("lr_scheduler_kwargs") or {}
    if not isinstance(arguments, dict):
        raise draft.error("lr_scheduler_kwargs", "must be a mapping.")
    put_schedule(draft, kind, arguments, peak or DEFAULTS["learning_rate"])


def put_schedule(draft: Draft, kind: str, arguments: dict[str, Any], peak: float) -> None:
    """Write the schedule ``kind`` of transformers with its ``lr_scheduler_kwargs``, and the warmup.

    Three of transformers' types are our families. The others are written under transformers' own name, which
    gives transformers' exact values; steps, peak and warmup come from the run.
    """
    from mlxsched.schedules import from_hf

    warmup, name = _warmup(draft)
    if kind in OWN_CONSTANTS:
        draft.put("schedule", kind, "lr_scheduler_type", "with the constants of the paper")
        draft.put("warmup", warmup, name)
        return
    try:
        from_hf(kind, peak, _ANY_LENGTH, warmup_steps=warmup, lr_scheduler_kwargs=arguments)
    except ScheduleError as error:
        at = "lr_scheduler_kwargs" if arguments else "lr_scheduler_type"
        raise draft.error(at, f"cannot be converted: {error}") from None
    family = {
        "linear": "linear",
        "cosine": "cosine",
        "constant_with_warmup": "constant",
        "constant": "constant",
    }
    plain = kind in family and not arguments
    draft.use("lr_scheduler_kwargs")
    draft.put("schedule", family[kind] if plain else {"name": f"hf.{kind}", **arguments}, "lr_scheduler_type")
    if kind in ("constant", "reduce_lr_on_plateau", "greedy"):
        note = f"transformers gives {kind!r} no warmup" if warmup else ""
        draft.put("warmup", 0, name, note)
    else:
        draft.put("warmup", warmup, name)


def _warmup(draft: Draft) -> tuple[int | float, str]:
    """The warmup in updates, or as a ratio below 1, and the name that it was given under.

    ``warmup_steps`` wins unless it is 0. transformers 5 takes ratios there, and reads a ratio of 1.0 as one step.
    """
    steps, ratio = draft.number("warmup_steps"), draft.number("warmup_ratio")
    value, name = (steps, "warmup_steps") if steps or ratio is None else (ratio, "warmup_ratio")
    if not value:
        return 0, name
    return (int(value) if value >= 1 else value), name


# The update


def _optimizer(draft: Draft) -> None:
    given = str(draft.take("optim")).rpartition(".")[2].lower()
    ours = next((name for start, name in OPTIMIZERS.items() if given.startswith(start)), None)
    if ours is None:
        draft.leave("optim", "not in MLX; adamw is used")
        ours = "adamw"
    else:
        draft.put("optimizer", ours, "optim", ADAMW_8BIT if "8bit" in given or "4bit" in given else "")
    arguments, used = _optimizer_arguments(draft, ours)
    draft.use(*used)
    draft.put("optimizer_config", {ours: arguments}, "weight_decay")


def _optimizer_arguments(draft: Draft, ours: str) -> tuple[dict[str, Any], list[str]]:
    """The optimizer's arguments, and the names that they come from.

    They are always written: MLX's AdamW decays weights by 0.01 by default, transformers' by 0.
    """
    decay, epsilon = draft.number("weight_decay") or 0.0, draft.number("adam_epsilon")
    betas = [draft.number("adam_beta1"), draft.number("adam_beta2")]
    arguments: dict[str, Any] = {"weight_decay": decay}
    if ours == "adafactor":  # the Trainer's settings; by MLX's default the learning rate is ignored
        return arguments | {"relative_step": False, "scale_parameter": False}, []
    if ours in ("adamw", "lion"):
        arguments["betas"] = betas
    if ours == "adamw":
        arguments["eps"] = epsilon
    return arguments, _MOMENTS[: {"adamw": 3, "lion": 2}.get(ours, 0)]


def _update(draft: Draft) -> None:
    if (norm := draft.number("max_grad_norm")) is not None:
        draft.put("max_grad_norm", norm, "max_grad_norm")
    if smoothing := draft.number("label_smoothing_factor"):
        draft.put("label_smoothing", smoothing, "label_smoothing_factor")
    if draft.flag("gradient_checkpointing"):
        draft.put("grad_checkpoint", True, "gradient_checkpointing")
    by_length = draft.take("train_sampling_strategy") == "group_by_length"
    if draft.flag("group_by_length") or by_length:
        name = "train_sampling_strategy" if by_length else "group_by_length"
        draft.put("length_window", 50, name, "transformers sorts 50 batches at a time")


# Evaluation, checkpoints, reports


def _evaluation(draft: Draft) -> None:
    old = draft.take("evaluation_strategy")  # its name before transformers 4.46
    strategy = str(draft.take("eval_strategy") or old or "").rpartition(".")[2].lower()
    steps = draft.number("eval_steps")
    if steps and steps >= 1 and strategy in ("steps", ""):
        draft.put("steps_per_eval", _interval(draft, steps), "eval_steps")
    elif steps:
        draft.leave("eval_steps", "a share of the run; by default a run is evaluated ten times")
    if strategy == "epoch":
        name = "eval_strategy" if draft.given("eval_strategy") else "evaluation_strategy"
        draft.leave(name, "evaluations are placed by updates: steps_per_eval, by default ten in a run")


def _interval(draft: Draft, updates: float) -> int:
    """An interval as our config counts it: in iterations where its length is in iterations, else in updates."""
    values = {entry.key: entry.value for entry in draft.entries}
    return int(updates) * (values.get("grad_accumulation_steps", 1) if "iters" in values else 1)


def _saving(draft: Draft) -> None:
    strategy = str(draft.take("save_strategy") or "steps").rpartition(".")[2].lower()
    steps = draft.number("save_steps")
    if strategy == "steps" and steps and steps >= 1:
        draft.put("save_every", _interval(draft, steps), "save_steps")
    elif steps:
        draft.leave("save_steps", "checkpoints are placed by updates: save_every, 100 by default")
    if strategy not in ("steps", "no"):
        draft.leave("save_strategy", "checkpoints are placed by updates: save_every, 100 by default")
    if kept := draft.whole("save_total_limit"):
        draft.put("keep_last", kept, "save_total_limit")


def _reports(draft: Draft) -> None:
    steps = draft.number("logging_steps")
    if steps and steps >= 1:
        draft.put("steps_per_report", _interval(draft, steps), "logging_steps")
    elif steps:
        draft.leave("logging_steps", "a share of the run; write updates as steps_per_report")
    _trackers(draft)
    name = draft.text("run_name")
    if name and _NAME.fullmatch(name):
        draft.put("name", name, "run_name")
    elif name:
        draft.leave("run_name", "not a name of a directory under runs/; choose one with --name")
    project = draft.text("project")
    if project and project != "huggingface":
        draft.put("project_name", project, "project")


def _trackers(draft: Draft) -> None:
    given = draft.take("report_to")
    named = [str(one) for one in (given if isinstance(given, list) else [given]) if one]
    known = [one for one in named if one in REPORTERS]
    if known:
        draft.put("report_to", ",".join(known), "report_to")
    unknown = [one for one in named if one not in REPORTERS and one not in ("none", "all")]
    if unknown:
        draft.leave("report_to", f"no such tracker here: {', '.join(unknown)}"[:100])
