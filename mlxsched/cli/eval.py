"""``mlxsched eval``: measure how good a run's adapter is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import note, print_json, say, table, waiting

if TYPE_CHECKING:
    from mlxsched.training.inference import Measured


@click.command()
@click.argument("run", type=Path)
@click.option("--base", is_flag=True, help="Evaluate the model without the adapter.")
@click.option("--final", is_flag=True, help="Use the last adapter instead of the best.")
@click.option("--data", help="Other data than the run's.")
@click.option("--model", help="Where the run's model is now, if it was moved.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help="Default: test, else valid.")
@click.option("--limit", type=click.IntRange(min=1), help="Use only the first N rows.", metavar="N")
@click.option("--no-generate", is_flag=True, help="Compute only the loss, which is faster.")
@click.option("--show", type=click.IntRange(min=0), default=0, help="Show N wrong answers.", metavar="N")
@click.option("--trust-remote-code", is_flag=True, help="Let the model's repository run its own code.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(run: Path, as_json: bool, **options: Any) -> None:
    """Evaluate the adapter of the run in the directory RUN: loss, perplexity, and exact match of its answers.

    RUN may also be the directory of one of the run's adapters, such as a snapshot or a checkpoint.

    \b
    Examples:
      mlxsched eval runs/laptop-001
      mlxsched eval runs/laptop-001 --base --json
      mlxsched eval runs/laptop-001/snapshots/000100
      mlxsched eval runs/laptop-001 --data my/folder --split valid --show 5
    """
    from mlxsched.platform.paths import cache_home
    from mlxsched.runs.directory import RunDirectory, split_adapter
    from mlxsched.training.inference import load_run_model, measure
    from mlxsched.training.recorded import config_of
    from mlxsched.training.session import refuse_missing

    place, adapter = split_adapter(run)
    directory = RunDirectory.open(place)
    config = config_of(
        directory,
        trust_remote_code=options["trust_remote_code"],
        data=options["data"],
        model=options["model"],
    )
    refuse_missing(config)
    with waiting(f"Loading {config.model}"):
        loaded = load_run_model(
            directory, config, base=options["base"], final=options["final"], adapter=adapter
        )
    measured = measure(
        loaded,
        config,
        split=options["split"],
        cache_dir=cache_home() / "rows",
        limit=options["limit"],
        ask=not options["no_generate"],
        on_progress=Tenths(),
    )
    if as_json:
        print_json({"run": str(run), "base": options["base"], **measured.to_dict()})
    else:
        _show(measured, options["show"])


class Tenths:
    """Reports the progress of a long step on stderr, at its start and at each tenth."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if self._last not in ((what, tenth), (what, 10)):
            self._last = (what, tenth)
            note(f"{what}: {tenth}0%") if tenth else note(f"{what} ...")


def _show(measured: Measured, wrong: int) -> None:
    values = measured.to_dict()
    rows = [
        ("split", measured.split),
        ("rows", f"{values['rows']:,}"),
        ("loss", f"{values['loss']:.4f}"),
        ("perplexity", f"{values['perplexity']:.4g}"),
    ]
    if measured.answers:
        rows.append(("exact match", f"{values['exact_match']:.1%} of {values['asked']:,}"))
    table(rows)
    misses = [answer for answer in measured.answers or [] if not answer.correct]
    for answer in misses[:wrong]:
        say(f"expected: {answer.expected}\n     got: {answer.text}\n")
