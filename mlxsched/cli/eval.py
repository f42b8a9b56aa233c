"""``mlxsched eval``: how good a run's adapter is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import note, print_json, safe, table

if TYPE_CHECKING:
    from mlxsched.training.inference import Measured


@click.command()
@click.argument("run", type=Path)
@click.option("--base", is_flag=True, help="Measure the model without the adapter.")
@click.option("--final", is_flag=True, help="Take the last adapter instead of the best.")
@click.option("--data", help="Other data than the run's.")
@click.option("--split", type=click.Choice(["train", "valid", "test"]), help="Default: test, else valid.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many rows.")
@click.option("--no-generate", is_flag=True, help="Only the loss; answers take longer.")
@click.option("--show", type=click.IntRange(min=0), default=0, help="Show so many wrong answers.")
@click.option(
    "--trust-remote-code", is_flag=True, help="Let the model's repository run its own tokenizer code."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    run: Path,
    base: bool,
    final: bool,
    data: str | None,
    split: str | None,
    limit: int | None,
    no_generate: bool,
    show: int,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Measure the adapter of the run in directory RUN: loss, perplexity, and answers that are exactly right.

    \b
    Examples:
      mlxsched eval runs/laptop-001
      mlxsched eval runs/laptop-001 --base --json
      mlxsched eval runs/laptop-001 --data my/folder --split valid --show 5
    """
    from mlxsched.platform.paths import cache_home
    from mlxsched.runs.directory import RunDirectory
    from mlxsched.training.inference import load_run_model, measure
    from mlxsched.training.run import config_of

    directory = RunDirectory.open(run)
    config = config_of(directory, trust_remote_code=trust_remote_code)
    if data:
        config = config.model_copy(update={"data": data, "hf_dataset": None})
    loaded = load_run_model(directory, config, base=base, final=final)
    measured = measure(
        loaded,
        config,
        split=split,
        cache_dir=cache_home() / "rows",
        limit=limit,
        ask=not no_generate,
        on_progress=Steps(),
    )
    if as_json:
        print_json({"run": str(run), "base": base, **measured.to_dict()})
    else:
        _show(measured, show)


class Steps:
    """Says on stderr how far something long has come, at each tenth."""

    def __init__(self) -> None:
        self._last = ("", -1)

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if self._last not in ((what, tenth), (what, 10)):
            self._last = (what, tenth)
            note(f"{what}: {tenth}0%") if tenth else note(f"{what} ...")


def _show(measured: Measured, wrong: int) -> None:
    values = measured.to_dict()
    rows = [("split", measured.split), ("rows", f"{values['rows']:,}"), ("loss", f"{values['loss']:.4f}")]
    rows.append(("perplexity", f"{values['perplexity']:.4g}"))
    if measured.answers:
        rows.append(("exact match", f"{values['exact_match']:.1%} of {values['asked']:,}"))
    table(rows)
    misses = [answer for answer in measured.answers or [] if not answer.correct]
    for answer in misses[:wrong]:
        click.echo(f"expected: {safe(answer.expected)}\n     got: {safe(answer.text)}\n")
