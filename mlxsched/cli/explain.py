"""``mlxsched explain``: what a config of mlx-lm does there and here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlxsched.cli.files import write_new
from mlxsched.cli.output import note, print_json, say, table

if TYPE_CHECKING:
    from mlxsched.integrations.explain import Explanation, Outcome


@click.command()
@click.argument("config", metavar="CONFIG.yaml", type=click.Path(path_type=Path))
@click.option("--data", metavar="DIR", help="Data to count rows in, if not that of the file.")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of training rows, if the data is not available.",
)
@click.option(
    "-w", "--write", type=click.Path(path_type=Path), metavar="FILE", help="Write the same run as our config."
)
@click.option("--force", is_flag=True, help="Overwrite the file that --write names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    config: Path, data: str | None, rows: int | None, write: Path | None, force: bool, as_json: bool
) -> None:
    """Explain line by line what an mlx-lm config does in mlx-lm and here: updates, rates, rows, differing defaults.

    \b
    Examples:
      mlxsched explain lora_config.yaml
      mlxsched explain lora_config.yaml --rows 5000 --json
      mlxsched explain lora_config.yaml --write mine.yaml
    """
    from mlxsched.integrations.explain import MlxLmConfig, explain

    read = MlxLmConfig.read(config)
    if rows is None:
        rows = _count_rows(data or ("" if "hf_dataset" in read.file.values else str(read.settings["data"])))
    found = explain(config, rows)
    if write is not None:
        from mlxsched.integrations.explain_write import same_run

        write_new(write, same_run(read).to_yaml(), force=force)
        note(f"Wrote {write}. Next: mlxsched plan -c {write}")
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found, rows)


def _count_rows(data: str) -> int | None:
    """Lines of the training set, as mlx-lm counts rows; None if it is not on this machine."""
    from mlxsched.bundled import data_path
    from mlxsched.errors import DataError

    directory = Path(data_path("excel")) if data == "excel" else Path(data).expanduser()
    path = directory / "train.jsonl" if directory.is_dir() else directory
    if not data or not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return sum(1 for _ in file)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None


_OUTCOMES = {
    "updates": "updates",
    "first_rate": "rate of the first update",
    "last_rate": "rate of the last update",
    "rows_never_seen": "rows never trained on",
}


def _print(found: Explanation, rows: int | None) -> None:
    table(
        [(line.line, f"{line.key}: {_short(line.value)}", line.theirs, line.ours) for line in found.lines],
        header=("line", "key", "in mlx-lm", "here"),
    )
    say()
    table(_outcomes(found.theirs, found.ours), header=("the run", "in mlx-lm", "here"))
    say()
    rest = [(d.key, _short(d.theirs), _short(d.ours)) for d in found.differences if d.key not in _OUTCOMES]
    table(rest, header=("differs", "in mlx-lm", "here"))
    if rows is None:
        note(
            "The training rows are not on this machine: give their number with --rows to see how many are left out."
        )


def _outcomes(theirs: Outcome, ours: Outcome) -> list[tuple[str, str, str]]:
    return [
        (text, _short(getattr(theirs, key)), _short(getattr(ours, key))) for key, text in _OUTCOMES.items()
    ]


def _short(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 90 else text[:87] + "..."
