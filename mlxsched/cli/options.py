"""The flags of a run, shared by the commands that plan one, with mlx-lm's names where mlx-lm has them."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from mlxsched.cli.flags import UnknownFlag, as_written
from mlxsched.config.load import LoadedConfig, load_config
from mlxsched.config.messages import SPELLING
from mlxsched.config.names import advice
from mlxsched.config.schema import LoraParameters, RunConfig
from mlxsched.text import did_you_mean, printable

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

# Heading in the help -> keys of RunConfig. A flag is the last part of the key, with dashes.
GROUPS = {
    "Model and data": "model dequantize data mask_prompt max_seq_length join_turns skip_bad_rows trust_remote_code "
    "prompt_feature completion_feature chat_feature text_feature",
    "Parameters": "fine_tune_type num_layers lora_parameters.rank lora_parameters.scale "
    "lora_parameters.dropout lora_plus_ratio resume_adapter_file",
    "Length": "epochs iters steps max_time until_plateau batch_size grad_accumulation_steps length_window micro_batch_tokens seed",
    "Learning rate": "learning_rate schedule warmup warmup_init end_lr",
    "Optimizer": "optimizer weight_decay bias_correction max_grad_norm label_smoothing z_loss max_bad_updates on_divergence",
    "Evaluation and reports": "val_batches steps_per_eval steps_per_report patience average average_every test test_batches "
    "report_to project_name",
    "Run directory": "run_dir name adapter_path save_every save_minutes keep_last",
    "Machine": "fast without tune packing share_prompts grad_checkpoint checkpoint_every stochastic_rounding prefix_cache memory cache_limit wired_limit "
    "clear_cache_threshold keep_awake pause_below",
}


# Values that are written with a unit.
METAVARS = dict.fromkeys(
    ("memory", "prefix_cache", "cache_limit", "wired_limit", "clear_cache_threshold"), "SIZE"
) | {
    "max_time": "TIME",
    "pause_below": "PERCENT",
    "model": "MODEL",
    "data": "DATA",
    "schedule": "SPEC",
    "without": "NAMES",
}


class GroupedOption(click.Option):
    """An option with a heading in the help and a key in the config."""

    def __init__(self, *names: Any, group: str = "", key: str = "", **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.group = group
        self.key = key


class GroupedCommand(click.Command):
    """A command whose help lists its options under headings, and that knows the flags of other tools."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, but with advice for a flag that does not exist."""
        written = tuple(args)  # click empties the list
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            flag = as_written(error.option_name, written)
            # Without click's own possibilities, which go by spelling alone: --lr gave --end-lr.
            message = f"No such option: {printable(flag)}.{self._hint(flag, _by_name(written), ctx)}"
            raise UnknownFlag(error.option_name, message, ctx=ctx) from None

    def _hint(self, flag: str, given: Mapping[str, str], ctx: click.Context) -> str:
        name = flag.lstrip("-")
        known = [option for parameter in self.get_params(ctx) for option in parameter.opts if len(option) > 2]
        dashed = f"--{name.replace('_', '-').lower()}"
        if dashed in known:
            return f" Did you mean {dashed!r}?"
        told = advice(name, given.get(name.replace("-", "_")), given, flag=True)
        return f" {told}" if told else did_you_mean(flag, known, SPELLING)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record:
                sections.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _by_name(args: Sequence[str]) -> dict[str, str]:
    """Flags with a value, by their name with underscores: ``--a-b 1`` and ``--a-b=1`` alike."""
    found: dict[str, str] = {}
    for arg, following in itertools.pairwise([*args, "-"]):
        name, equals, value = arg.removeprefix("--").partition("=")
        if arg.startswith("--") and (equals or not following.startswith("-")):
            found[name.replace("-", "_")] = value if equals else following
    return found


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--preset``, ``--config`` and the flags of a run to a command of class ``GroupedCommand``.

    The command receives one keyword for each flag; `load_given` makes the configuration of them. Values stay
    text: the schema reads them, so that all mistakes are reported together.
    """
    start = "Start from"
    decorators = [
        _option("--preset", group=start, metavar="NAME", help="A preset; `mlxsched presets` lists them."),
        _option(
            "-c", "--config", group=start, metavar="FILE", type=Path, help="A YAML file, ours or mlx-lm's."
        ),
        _option(
            "--as-mlx-lm",
            group=start,
            is_flag=True,
            help="Use mlx-lm's defaults, and count intervals in iterations as mlx-lm does.",
        ),
        *(_flag(key, group) for group, keys in GROUPS.items() for key in keys.split()),
        # mlx-lm needs it; here it only overrides `train: false` in a file.
        _option("--train", key="train", is_flag=True, flag_value=True, default=None, hidden=True),
    ]
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def load_given(ctx: click.Context) -> LoadedConfig:
    """The configuration that the command line asks for.

    Where the length is known without the data, the schedule is resolved once, so that a mistake in it ends the
    command before a model is loaded.
    """
    from mlxsched.planning.length import plan_length
    from mlxsched.planning.schedule import resolve_schedule

    given = ctx.params
    loaded = load_config(
        preset=given["preset"], file=given["config"], flags=given_flags(ctx), as_mlx_lm=given["as_mlx_lm"]
    )
    config = loaded.config
    if config.epochs is None:
        resolve_schedule(config, loaded.origins, plan_length(config, config.batch_size).updates)
    return loaded


def given_flags(ctx: click.Context) -> dict[str, object]:
    """What the user set on the command line, by key of the config, for ``load_config(flags=...)``."""
    values = {getattr(option, "key", ""): ctx.params.get(option.name or "") for option in ctx.command.params}
    return {key: value for key, value in values.items() if key and value is not None}


def repeated_flags(ctx: click.Context, without: Collection[str] = ()) -> list[str]:
    """The flags of a run that were given, quoted for a shell, for another command that makes the same run."""
    found = []
    for option in ctx.command.params:
        name = option.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not isinstance(option, GroupedOption) or not given or option.key in without:
            continue
        value = ctx.params[name]
        if option.is_flag:
            found.append(option.opts[-1] if value else option.secondary_opts[-1])
        else:
            found.append(f"{option.opts[-1]} {shlex.quote(str(value))}")
    return found


def _flag(key: str, group: str) -> Decorator:
    outer, _, inner = key.partition(".")
    field = LoraParameters.model_fields[inner] if inner else RunConfig.model_fields[outer]
    name = (inner or outer).replace("_", "-")
    if field.annotation in (bool, bool | None):
        return _option(f"--{name}/--no-{name}", group=group, key=key, default=None, help=field.description)
    return _option(f"--{name}", group=group, key=key, metavar=_metavar(key, field), help=_help(field))


def _option(*names: str, **settings: Any) -> Decorator:
    return click.option(*names, cls=GroupedOption, **settings)


def _metavar(key: str, field: FieldInfo) -> str:
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        return "|".join(choices)
    if key in METAVARS:
        return METAVARS[key]
    kinds = [_plain(kind) for kind in get_args(field.annotation) or (field.annotation,)]
    return "N" if int in kinds else "X" if float in kinds else "TEXT"


def _plain(kind: Any) -> Any:
    """The type below ``Annotated``."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _help(field: FieldInfo) -> str:
    return f"{field.description}" if field.default in (None, "") else f"{field.description} [{field.default}]"
