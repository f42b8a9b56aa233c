"""``mlxsched data``: look at a data set before training on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.output import console, note, print_json, say, table
from mlxsched.cli.rows_read import RowsRead
from mlxsched.text import counted, without_controls

if TYPE_CHECKING:
    from mlxsched.data import DataOptions
    from mlxsched.data.check import DataReport, SplitReport
    from mlxsched.data.show import ShownRow

BAR_WIDTH = 40
HEADER = (
    "split", "rows", "bad", "dropped", "cut", "twice", "tokens", "targets", "shortest", "median", "longest",
)  # fmt: skip
OPTIONAL = ("shortest", "median", "twice", "targets")  # left out first on a narrow terminal
SHOWN_ROWS = 10  # without --rows; --json has all
# Around targets where there are no colours: characters that no program prints by accident, and that grep finds.
TARGET_BEGIN, TARGET_END = "⟦", "⟧"


@click.group()
def command() -> None:
    """Check a data set, or show its rows as the model sees them.

    \b
    Examples:
      mlxsched data check my-data
      mlxsched data show my-data --rows 1,2
    """


def _reading_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that decide how rows become tokens, under the names and with the defaults of ``train``."""
    options = [
        click.argument("source", metavar="DATA"),
        click.option("--model", help="Model whose tokenizer and chat template to use. [tiny]"),
        click.option("--preset", metavar="NAME", help="Read the rows as a run with this preset does."),
        click.option("-c", "--config", metavar="FILE", type=Path, help="... or with this YAML file."),
        click.option(
            "--max-seq-length",
            metavar="N",
            help="Maximum number of tokens in a row; the rest is cut off. [2048]",
        ),
        click.option(
            "--mask-prompt/--no-mask-prompt", default=None, help="Score only answers, or all tokens."
        ),
        click.option(
            "--join-turns/--no-join-turns",
            default=None,
            help="Join training rows that are a prefix of another row into that row.",
        ),
        click.option("--seed", metavar="N", help="Decides how a single file is split. [0]"),
        click.option("--text-feature", metavar="KEY", help="Key of a row's text."),
        click.option("--chat-feature", metavar="KEY", help="Key of a row's chat."),
        click.option("--prompt-feature", metavar="KEY", help="Key of a row's prompt."),
        click.option("--completion-feature", metavar="KEY", help="Key of a row's answer."),
        click.option("--trust-remote-code", is_flag=True, help="Run the code of the tokenizer's repository."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command.command()
@_reading_options
def check(source: str, as_json: bool, **flags: Any) -> None:
    """Count, measure and examine the rows of DATA: a directory, a file, or `excel`.

    Rows are read exactly as `train` reads them with the same model and flags. Exits with 3 if there are errors.

    \b
    Examples:
      mlxsched data check my-data --model my-model --max-seq-length 1024
      mlxsched data check rows.jsonl --json
    """
    from mlxsched.data import check as checking
    from mlxsched.data import load_dataset
    from mlxsched.data.sources.open import is_one_file
    from mlxsched.errors import ChecksFailed

    note(f"Reading {source} ...")
    tokenizer, options = _open(source, (), **flags)
    one_file = is_one_file(source)
    report = checking.check(
        load_dataset(source, tokenizer, options, progress=RowsRead()), options, one_file=one_file
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print(report)
    if not report.healthy:
        raise ChecksFailed(
            f"{source} has errors, listed above. Training would stop at them or work around them."
        )
    note(_verdict(report))


@command.command()
@_reading_options
@click.option(
    "--rows", metavar="LIST", help=f"Rows to show, such as 1,2,5-8. [the first {SHOWN_ROWS}; --json: all]"
)
@click.option(
    "--split",
    type=click.Choice(["train", "valid", "test"]),
    default="train",
    show_default=True,
    help="Which split.",
)
def show(source: str, as_json: bool, rows: str | None, split: str, **flags: Any) -> None:
    """Show rows of DATA as the model sees them: all tokens as text, with the targets marked.

    The model learns to predict the targets; everything else is context. Targets are green on a terminal with
    colours, and enclosed in ⟦ and ⟧ elsewhere.

    \b
    Examples:
      mlxsched data show my-data --model my-model
      mlxsched data show rows.jsonl --rows 1,2 --json
    """
    from mlxsched.data import load_dataset
    from mlxsched.data import show as showing

    tokenizer, options = _open(source, (split,), **flags)
    dataset = load_dataset(source, tokenizer, options, progress=RowsRead())
    found = dataset.splits[split]
    shown = range(1, (len(found) if as_json else min(len(found), SHOWN_ROWS)) + 1)
    numbers = shown if rows is None else showing.parse_numbers(rows, len(found))
    if as_json:
        print_json([row.to_dict() for row in showing.show(found, tokenizer, numbers)])
    else:
        for row in showing.show(found, tokenizer, numbers):
            _print_row(row)
    if dataset.problems.count:
        note(
            f"{counted(dataset.problems.count, 'row')} can't be used; the first: {dataset.problems.shown[0]}"
        )
    if len(shown) < len(found) and rows is None:
        note(f"{len(shown)} of {counted(len(found), 'row')} of {split}; select others with --rows.")


def _open(
    source: str, need: tuple[str, ...], preset: str | None, config: Path | None, **flags: Any
) -> tuple[Any, DataOptions]:
    """The tokenizer, and options that read what a training with these flags reads."""
    from dataclasses import replace

    from mlxsched.config.load import load_config
    from mlxsched.data import DataOptions
    from mlxsched.data.tokenizer import load_tokenizer_and_config
    from mlxsched.model.load import max_positions, resolve_model

    trust = flags.pop("trust_remote_code")
    given = {key: value for key, value in flags.items() if value is not None}
    run = load_config(preset=preset, file=config, flags={"data": source, **given}).config
    tokenizer, settings = load_tokenizer_and_config(resolve_model(run.model), trust_remote_code=trust)
    options = DataOptions.of_run(run, max_positions=max_positions(settings))
    return tokenizer, replace(options, skip_bad_rows=True, need=need, trust_remote_code=trust)


def _verdict(report: DataReport) -> str:
    if not report.findings:
        return "No problems found."
    return f"No errors; {counted(len(report.findings), 'note')} above."


def _print(report: DataReport) -> None:
    table([_numbers(split, r) for split, r in report.splits.items()], header=HEADER, optional=OPTIONAL)
    for split, r in report.splits.items():
        most = max((count for *_, count in r.histogram), default=0)
        bars = [(f"{a}-{b - 1}", count, "█" * -(-count * BAR_WIDTH // most)) for a, b, count in r.histogram]
        if bars:
            say(f"\n{split}, by length in tokens")
            table(bars)
    if report.findings:
        say("\nFound")
        table([(f.severity, f.where, f.evidence, f"{f.fix}.") for f in report.findings])
    for line in report.problems:
        say(f"  {line}")


def _numbers(split: str, r: SplitReport) -> tuple[str | int, ...]:
    of_rows = (r.rows, r.counts.bad, r.counts.dropped, r.counts.truncated, r.duplicates)
    return (split, *of_rows, r.tokens, r.targets, r.shortest, r.median, r.longest)


def _print_row(row: ShownRow) -> None:
    where = f"{row.file}:{row.line}  " if row.file is not None else ""
    heading = f"row {row.row}  {where}{counted(row.tokens, 'token')}, {counted(row.targets, 'target')}"
    out = console()
    if not out.is_terminal or out.no_color:
        marks = {True: f"{TARGET_BEGIN}%s{TARGET_END}", False: "%s"}
        say(f"{heading}\n" + "".join(marks[target] % text for text, target in row.segments) + "\n")
        return
    from rich.text import Text

    styled = [(text, "green" if target else "dim") for text, target in row.segments]
    parts = [(f"{heading}\n", "bold"), *styled, ("\n", "")]
    out.print(Text.assemble(*((without_controls(text), style) for text, style in parts)), soft_wrap=True)
