"""The flags of a run, shared by the commands that plan one: mlx-lm's names where mlx-lm has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from pydantic.fields import FieldInfo

from mlxsched.config.schema import LoraParameters, RunConfig

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Heading in the help -> keys of RunConfig. The flag is the last part of the key, with dashes.
GROUPS = {
    "Model and data": "model dequantize data mask_prompt max_seq_length skip_bad_rows trust_remote_code "
    "prompt_feature completion_feature chat_feature text_feature",
    "What to train": "fine_tune_type num_layers lora_parameters.rank lora_parameters.scale "
    "lora_parameters.dropout lora_plus_ratio resume_adapter_file",
    "Length": "epochs iters max_time batch_size grad_accumulation_steps length_window micro_batch_tokens seed",
    "Learning rate": "learning_rate schedule warmup warmup_init end_lr",
    "Update": "optimizer weight_decay bias_correction max_grad_norm label_smoothing z_loss max_bad_updates on_divergence",
    "Evaluation and reports": "val_batches steps_per_eval steps_per_report patience test test_batches "
    "report_to project_name",
    "Run directory": "run_dir name adapter_path save_every save_minutes keep_last",
    "Machine": "fast packing grad_checkpoint checkpoint_every prefix_cache memory cache_limit wired_limit "
    "clear_cache_threshold keep_awake pause_below",
}


class GroupedOption(click.Option):
    """An option that knows its heading in the help, and its key in the config."""

    def __init__(self, *names: Any, group: str = "", key: str = "", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group
        self.key = key


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--preset``, ``--config`` and the flags of a run to a command of class ``GroupedCommand``.

    The command receives ``preset``, ``config`` (a path) and one keyword for each flag; ``given_flags`` picks
    out what the user set. Values stay text: the schema reads them, so all mistakes are told in one go.
    """
    start = "Start from"
    decorators = [
        _option("--preset", group=start, metavar="NAME", help="A preset; `mlxsched presets` lists them."),
        _option(
            "-c", "--config", group=start, metavar="FILE", type=Path, help="A YAML file, mlx-lm's or ours."
        ),
        *(_flag(key, group) for group, keys in GROUPS.items() for key in keys.split()),
        _option("--train", is_flag=True, hidden=True, expose_value=False),  # mlx-lm's users type it
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def given_flags(ctx: click.Context) -> dict[str, object]:
    """Return what the user set on the command line, by key of the config, for ``load_config(flags=...)``."""
    values = {getattr(option, "key", ""): ctx.params.get(option.name or "") for option in ctx.command.params}
    return {key: value for key, value in values.items() if key and value is not None}


def _flag(key: str, group: str) -> Decorator:
    outer, _, inner = key.partition(".")
    field = LoraParameters.model_fields[inner] if inner else RunConfig.model_fields[outer]
    name = (inner or outer).replace("_", "-")
    if field.annotation in (bool, bool | None):
        return _option(f"--{name}/--no-{name}", group=group, key=key, default=None, help=field.description)
    return _option(f"--{name}", group=group, key=key, metavar=_metavar(field), help=_help(field))


def _option(*names: str, **settings: Any) -> Decorator:
    return click.option(*names, cls=GroupedOption, **settings)


def _metavar(field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        return "|".join(choices)
    kinds = get_args(field.annotation) or (field.annotation,)
    return "N" if int in kinds else "X" if float in kinds else "TEXT"


def _help(field: FieldInfo) -> str:
    return f"{field.description}" if field.default in (None, "") else f"{field.description} [{field.default}]"
