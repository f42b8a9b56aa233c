"""``mlxsched data``: look at a data set before training on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mlxsched.cli.output import note, print_json, say, table
from mlxsched.text import counted

if TYPE_CHECKING:
    from mlxsched.data.check import DataReport, SplitReport

BAR_WIDTH = 40
HEADER = (
    "split", "rows", "bad", "dropped", "cut", "twice", "tokens", "targets", "shortest", "median", "longest",
)  # fmt: skip


@click.group()
def command() -> None:
    """Look at a data set before training on it.

    \b
    Example:
      mlxsched data check my-data
    """


@command.command()
@click.argument("source", metavar="DIR")
@click.option("--model", default="tiny", show_default=True, help="Whose tokenizer and chat template to use.")
@click.option("--max-seq-length", default=2048, show_default=True, help="Tokens beyond it are cut off.")
@click.option(
    "--mask-prompt/--no-mask-prompt", default=True, show_default=True, help="Score only the answers, or all."
)
@click.option("--seed", default=0, show_default=True, help="Of the split, when DIR is a single file.")
@click.option("--trust-remote-code", is_flag=True, help="Let the tokenizer's repository run its code.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    source: str,
    model: str,
    max_seq_length: int,
    mask_prompt: bool,
    seed: int,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Count, measure and examine the rows of DIR (or a file, or `excel`); ends with 3 if something is wrong.

    \b
    Examples:
      mlxsched data check my-data --model my-model --max-seq-length 1024
      mlxsched data check rows.jsonl --json
    """
    from mlxsched.data import DataOptions, load_dataset
    from mlxsched.data import check as checking
    from mlxsched.data.tokenizer import load_tokenizer
    from mlxsched.errors import ChecksFailed
    from mlxsched.model.load import resolve_model

    options = DataOptions(
        mask_prompt=mask_prompt, max_seq_length=max_seq_length, skip_bad_rows=True, seed=seed, need=()
    )
    tokenizer = load_tokenizer(resolve_model(model), trust_remote_code=trust_remote_code)
    report = checking.check(load_dataset(source, tokenizer, options), options)
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.healthy:
        raise ChecksFailed(f"{source} has problems that training would meet; they are listed above.")
    note(_verdict(report))


def _verdict(report: DataReport) -> str:
    if not report.findings:
        return "No problems found."
    return f"No errors; {counted(len(report.findings), 'note')} above."


def _print(report: DataReport) -> None:
    table([_numbers(split, r) for split, r in report.splits.items()], header=HEADER)
    for split, r in report.splits.items():
        most = max((count for *_, count in r.histogram), default=0)
        bars = [(f"{a}-{b - 1}", count, "█" * -(-count * BAR_WIDTH // most)) for a, b, count in r.histogram]
        if bars:
            say(f"\n{split}, by length in tokens")
            table(bars)
    if report.findings:
        say("\nFound")
        table([(f.severity, f.where, f.evidence, f.fix) for f in report.findings])
    for line in report.problems:
        say(f"  {line}")


def _numbers(split: str, r: SplitReport) -> tuple[str | int, ...]:
    of_rows = (r.rows, r.counts.bad, r.counts.dropped, r.counts.truncated, r.duplicates)
    return (split, *of_rows, r.tokens, r.targets, r.shortest, r.median, r.longest)
