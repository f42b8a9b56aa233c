"""``mlxsched bench``: compare mlx-lm's training loop with ours on the user's model and rows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from mlxsched.bench.cases import CASES
from mlxsched.cli.options import GroupedCommand, load_given, run_options
from mlxsched.cli.output import note, print_json, say, table
from mlxsched.errors import UsageError
from mlxsched.text import clock, counted

if TYPE_CHECKING:
    from mlxsched.bench.compare import Comparison
    from mlxsched.training.session import Session


@click.command(cls=GroupedCommand)
@run_options
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Rounds; each runs both loops. [5]")
@click.option(
    "--rows", type=click.IntRange(min=1), default=128, help="Rows to train on, sampled at random. [128]"
)
@click.option(
    "--epochs-later/--no-epochs-later", default=True, help="Also measure a second epoch. [epochs-later]"
)
@click.option("--evaluation/--no-evaluation", default=True, help="Also measure an evaluation. [evaluation]")
@click.option(
    "--case",
    "cases",
    type=click.Choice(list(CASES)),
    multiple=True,
    help="Measure a case with a model of random weights instead; may be repeated.",
)
@click.option(
    "--share",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write a file that you can send: machine, versions and ratios of all cases that fit, or of --case.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_context
def command(ctx: click.Context, /, **flags: Any) -> None:
    """Compare the speed and memory of mlx-lm's training loop and ours.

    Both loops make the same updates on the same rows, from the same weights, with the same loss, in turn. On a CPU,
    times are CPU time, so that other programs do not count. Ratios compare the two loops of one round; their median
    over the rounds is shown.

    --case and --share measure prepared cases, which include model, rows and settings, and need no download; they
    accept no other flags except --json. The file of --share contains no paths, host names or user names.

    \b
    Examples:
      mlxsched bench --num-layers 2 --batch-size 4 --data synthetic:lognormal
      mlxsched bench --model Qwen/Qwen3-0.6B --data my/folder --rows 32 --rounds 3 --json
      mlxsched bench --case bundled
      mlxsched bench --share my-mac.json
    """
    if flags["cases"] or flags["share"]:
        from mlxsched.cli.bench_cases import run_cases

        _refuse_others(ctx)
        run_cases(flags["cases"], flags["share"], as_json=flags["as_json"], eta=Eta)
        return
    from mlxsched.bench.compare import compare

    session = _session(load_given(ctx), flags)
    result = compare(
        session,
        rounds=flags["rounds"],
        later=flags["epochs_later"],
        evaluation=flags["evaluation"],
        tell=Eta(),
    )
    values = {"model": session.config.model, "data": session.config.data, **result.to_dict()}
    if flags["as_json"]:
        print_json(values)
        return
    _show(result, values)


def _refuse_others(ctx: click.Context) -> None:
    """A flag that a prepared case would ignore."""
    for option in ctx.command.params:
        name = option.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("cases", "share", "as_json"):
            raise UsageError(
                f"{'/'.join([option.opts[-1], *option.secondary_opts])} has no effect with --case or --share: prepared cases have their own settings. "
                "Leave it out."
            )


def _session(loaded: Any, flags: dict[str, Any]) -> Session:
    from mlxsched.bench.compare import shortened
    from mlxsched.bench.synthetic import is_synthetic, picked_rows, synthetic_dataset
    from mlxsched.platform.paths import cache_home
    from mlxsched.training.session import prepare

    config, rows = loaded.config, flags["rows"]
    made = None
    if is_synthetic(config.data):
        made = synthetic_dataset(config.data, rows, seed=config.seed, longest=config.max_seq_length)
    note(f"Loading {config.model} ...")
    session = prepare(config, loaded.origins, dataset=made, cache=cache_home())
    per_update = session.plan.batch_size
    count = min(rows, len(session.train_rows)) // per_update * per_update
    picked = picked_rows(session.train_rows, count, seed=config.seed)
    return shortened(session, picked, later=flags["epochs_later"])


class Eta:
    """Reports on stderr which loop runs, and the time left."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        if not what:
            return
        passed = time.monotonic() - self._started
        left = f", about {clock(passed / done * (total - done))} left" if done else ""
        note(f"round {done // 2 + 1}/{total // 2}: {what}{left}")


def _show(result: Comparison, values: dict[str, Any]) -> None:
    kind = "CPU time" if values["clock"] == "cpu" else "time"
    lines = [
        (name, *(_format(values[side][key]) for side in ("mlx_lm", "mlxsched")))
        for name, key in (
            ("real tokens/s", "tokens_per_second"),
            ("targets/s", "targets_per_second"),
            ("real tokens/s, later epochs", "later_tokens_per_second"),
            ("peak above the weights, MB", "peak_memory_mb"),
            ("padding", "padding"),
            ("share of the matmul ceiling", "ceiling_share"),
        )
        if values["mlxsched"][key] is not None
    ]
    table(lines, header=(f"{values['rows']} rows, {kind}", "mlx-lm", "mlxsched"))
    say()
    table(list(_findings(result, values)))


def _findings(result: Comparison, values: dict[str, Any]) -> Any:
    low, high = min(values["speedups"]), max(values["speedups"])
    rounds = counted(values["rounds"], "round")
    spread = f"in {rounds}" if values["rounds"] == 1 else f"{low:.2f} to {high:.2f} in {rounds}"
    yield (
        "first epoch",
        f"{result.speedup:.2f}x as fast ({spread})",
    )
    for name, key in (
        ("later epochs", "later_epochs_speedup"),
        ("first evaluation", "evaluation_speedup"),
        ("later evaluations", "later_evaluations_speedup"),
    ):
        if values[key] is not None:
            yield name, f"{values[key]:.2f}x as fast"
    yield "peak above the weights", f"{result.peak_memory_ratio:.2f} times mlx-lm's"
    yield "largest loss difference", f"{result.loss_difference:.1e} relative"
    yield "matmul ceiling", f"{values['ceiling_gflops']:.0f} GFLOP/s in float32"


def _format(value: float) -> str:
    return f"{value:.0%}" if abs(value) < 1 else f"{value:,.0f}"
