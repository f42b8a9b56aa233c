"""The words of `mlxsched.integrations.explain`: what each key means in mlx-lm and here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlxsched.config import RunConfig
from mlxsched.schedules import Schedule
from mlxsched.text import counted, did_you_mean


@dataclass(frozen=True)
class Difference:
    """Something that is not the same in mlx-lm (``theirs``) and here (``ours``)."""

    key: str
    theirs: Any
    ours: Any


Settings = Mapping[str, Any]
Texts = tuple[str, str]
SAME = "the same"


def describe(key: str, settings: Settings, updates: int, *, known: bool) -> Texts:
    """What ``key`` means in mlx-lm and here."""
    if key in _TEXTS:
        return _TEXTS[key](settings, updates)
    if key in settings and key in _PLAIN:
        return _PLAIN[key], SAME
    if known:
        return "ignored silently: not a key of mlx-lm", "used"
    near = did_you_mean(key, [*_TEXTS, *_PLAIN], cutoff=0.7)
    return "ignored silently: not a key of mlx-lm", f"refused.{near}"


_PLAIN = {
    "model": "a directory or a repository",
    "data": "a directory with train.jsonl, or a data set on the Hub",
    "hf_dataset": "a data set on the Hub",
    "prompt_feature": "the key of a row's prompt",
    "completion_feature": "the key of a row's answer",
    "text_feature": "the key of a row's text",
    "chat_feature": "the key of a row's messages",
    "fine_tune_type": "lora, dora or full",
    "optimizer": "the optimizer",
    "batch_size": "rows of an iteration",
    "seed": "the seed",
    "max_seq_length": "longer rows are cut off",
    "test": "evaluate on test.jsonl at the end",
    "train": "train",
    "project_name": "the project at the tracker",
    "report_to": "the tracker",
    "config": "the config file",
    "trust_remote_code": "run the tokenizer's code",
    "val_batches": "validation batches of an evaluation; -1 for all",
    "test_batches": "test batches; -1 for all",
}


def _iters(settings: Settings, updates: int) -> Texts:
    accumulation, left = (
        settings["grad_accumulation_steps"],
        settings["iters"] % settings["grad_accumulation_steps"],
    )
    theirs = f"{counted(updates, 'update')} of {counted(settings['batch_size'] * accumulation, 'row')}"
    if not left:
        return theirs, SAME
    return (
        f"{theirs}; the last {counted(left, 'iteration')} have no effect",
        f"{updates + 1:,} updates, the last one of fewer rows",
    )


def _accumulation(settings: Settings, updates: int) -> Texts:
    if settings["grad_accumulation_steps"] == 1:
        return "an update after every iteration", SAME
    return (
        "the mean of the iterations' mean losses: a short row weighs as much as a long one",
        "the mean over all targets of the update",
    )


def _learning_rate(settings: Settings, updates: int) -> Texts:
    if settings["lr_schedule"]:
        return "not used: lr_schedule decides", SAME
    return (
        "held from the first to the last update",
        "the peak; falls linearly to 0. `schedule: constant` holds it",
    )


def _lr_schedule(settings: Settings, updates: int) -> Texts:
    return "counted in updates, not in iterations", "the same rates"


def _per_iterations(settings: Settings, updates: int) -> Texts:
    same = settings["grad_accumulation_steps"] == 1
    return "counted in iterations", SAME if same else "counted in updates"


def _mask_prompt(settings: Settings, updates: int) -> Texts:
    if not settings["mask_prompt"]:
        return "prompts are scored too", SAME
    return "of a chat, the last answer is scored", "of a chat, every answer is scored"


def _lora_parameters(settings: Settings, updates: int) -> Texts:
    given = settings["lora_parameters"] or {}
    missing = [key for key in ("rank", "scale", "dropout") if key not in given]
    if missing:
        return f"stops with a KeyError: {missing[0]} is missing", "what is missing has its default"
    return f"rank {given['rank']}, scale {given['scale']} (alpha over rank, not alpha)", SAME


def _num_layers(settings: Settings, updates: int) -> Texts:
    if settings["num_layers"] <= 0:
        return "all layers are trained", SAME
    return "the last layers; stops if the model has fewer", "the last layers; all if the model has fewer"


_TEXTS: dict[str, Callable[[Settings, int], Texts]] = {
    "iters": _iters,
    "grad_accumulation_steps": _accumulation,
    "learning_rate": _learning_rate,
    "lr_schedule": _lr_schedule,
    "steps_per_report": _per_iterations,
    "steps_per_eval": _per_iterations,
    "save_every": _per_iterations,
    "mask_prompt": _mask_prompt,
    "lora_parameters": _lora_parameters,
    "num_layers": _num_layers,
    "optimizer_config": lambda *_: ("arguments of the optimizer", SAME),
    "adapter_path": lambda *_: (
        "weights are overwritten in place",
        "the adapter is copied there, whole or not at all",
    ),
    "resume_adapter_file": lambda *_: (
        "weights only: warmup, moments and order start again",
        "the same; `mlxsched resume` continues a run exactly",
    ),
    "grad_checkpoint": lambda *_: ("every layer is recomputed", SAME),
    "clear_cache_threshold": lambda *_: (
        "never reaches the trainer: the cache is cleared at every step",
        "used",
    ),
}


def behaviour(settings: Settings, updates: int, schedule: Schedule, ours: RunConfig) -> Iterator[Difference]:
    """What differs though no key of the file says so."""
    yield from _rate(settings, updates, schedule, ours)
    yield from _update(settings, ours)
    yield Difference(
        "targets", "one token of padding per row is scored too", "only the row's own tokens are scored"
    )
    yield Difference(
        "batches", "rows in the order of the file, not sorted by length", "micro-batches of similar length"
    )
    yield Difference(
        "rows", "rows beyond a multiple of batch_size are never trained on", "every row, in every epoch"
    )
    yield Difference("last evaluation", "before the last update", "after the last update")


def _rate(settings: Settings, updates: int, schedule: Schedule, ours: RunConfig) -> Iterator[Difference]:
    if not settings["lr_schedule"] and not (ours.schedule == "constant" and ours.warmup == 0):
        yield Difference("schedule", "constant", f"{ours.schedule}, warmup {ours.warmup:g}")
    if updates and settings["lr_schedule"] and schedule.steps and schedule.steps > updates:
        peak = schedule.extrema(updates - 1).high
        share = float(schedule(updates - 1)) / peak if peak else 0.0
        end = f"made for {counted(schedule.steps, 'update')}, the run has {updates:,}: ends at {share:.1%} of its peak"
        yield Difference("lr_schedule", end, f"{end}; the plan warns of it")


def _update(settings: Settings, ours: RunConfig) -> Iterator[Difference]:
    optimizer = str(settings["optimizer"]).lower()
    arguments = (settings["optimizer_config"] or {}).get(optimizer) or {}
    corrected = bool(arguments.get("bias_correction"))
    if optimizer in ("adam", "adamw") and corrected != ours.bias_correction:
        yield Difference("bias_correction", corrected, ours.bias_correction)
    if ours.max_grad_norm:
        yield Difference("max_grad_norm", None, ours.max_grad_norm)
    if settings["grad_accumulation_steps"] > 1:
        yield Difference("accumulation", "mean of the iterations' means", "mean over all targets")
