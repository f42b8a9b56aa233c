"""What the commands print: results on stdout, notes on stderr, no colour codes off a terminal.

Every command prints through this module. Text may come from a config, a run directory, a data set or a model, so
`say`, `note`, `warn` and `table` remove control characters, and `print_json` escapes them. Only `picture` prints text
unchanged: a chart, whose colours are our own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

import click

from mlxsched.runs.json_file import finite
from mlxsched.text import without_controls

if TYPE_CHECKING:
    from rich.console import Console

SILENCE = 3.0  # seconds after which a user may think that the program hangs

# json.dumps escapes the C0 controls. The others reach a terminal unless they are escaped too, and a lone surrogate
# cannot be written at all.
_UNPRINTABLE = re.compile("[\x7f-\x9f\ud800-\udfff]")


def say(text: str = "", *, nl: bool = True) -> None:
    """Print `text` on stdout: a result."""
    click.echo(without_controls(text), nl=nl)


def note(text: str) -> None:
    """Print `text` on stderr: something that is not the result."""
    click.echo(without_controls(text), err=True)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print ``what`` is being done on stderr, if it takes longer than `SILENCE`."""
    timer = Timer(SILENCE, note, [f"{what} ..."])
    timer.daemon = True  # an error or Ctrl-C ends the process at once
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def warn(text: str) -> None:
    """Print a warning on stderr."""
    note(f"Warning: {text}")


def picture(text: str, *, stderr: bool = False) -> None:
    """Print a chart as it was drawn, with its colours; the renderer removes control characters from its labels."""
    click.echo(text, err=stderr)


def print_json(value: object) -> None:
    """Print `value` on stdout as JSON: floats with every digit, null for what is not finite."""
    _print_json(value, indent=2)


def print_json_line(value: object) -> None:
    """As `print_json`, on one line, which is written at once: for a program that reads along."""
    _print_json(value, indent=None)
    sys.stdout.flush()


def _print_json(value: object, indent: int | None) -> None:
    text = json.dumps(finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    click.echo(_UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def console(*, stderr: bool = False) -> Console:
    """A rich console; rich drops colours off a terminal and under ``NO_COLOR``.

    Off a terminal lines may be long, so that ``grep`` finds whole ones.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 200
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def table(
    rows: Iterable[Sequence[object]],
    *,
    header: Sequence[str] = (),
    title: str = "",
    stderr: bool = False,
    optional: Sequence[str] | None = None,
) -> None:
    """Print `rows` in aligned columns, numbers to the right.

    With ``optional``, no cell is broken: the columns of these names are left out, the first one first, until the table
    fits the terminal. Where it still doesn't fit, the terminal wraps its lines, so that a path can be copied.
    """
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    out = console(stderr=stderr)
    if optional is not None:
        header, rows = _fitted(header, rows, optional, out.width)
        out.width = max(out.width, table_width(header, rows))
    grid = Table(
        *header, title=title or None, title_justify="left", box=None, show_header=bool(header), pad_edge=False
    )
    for position in range(len(header), max(map(len, rows), default=0)):
        grid.add_column(str(position))
    for column, cells in zip(grid.columns, zip(*rows, strict=True), strict=False):
        column.justify = "right" if all(isinstance(cell, (int, float)) for cell in cells) else "left"
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(without_controls(str(cell))) for cell in row))
    out.print(grid)


def table_width(header: Sequence[str], rows: Sequence[Sequence[object]]) -> int:
    """The columns of a terminal that `table` needs without breaking a cell."""
    from rich.cells import cell_len

    columns = zip(header, *rows, strict=True)
    return sum(max(cell_len(str(cell)) for cell in column) + 2 for column in columns) - 2


def _fitted(
    header: Sequence[str], rows: Sequence[Sequence[object]], optional: Sequence[str], width: int
) -> tuple[Sequence[str], list[Sequence[object]]]:
    """``header`` and ``rows`` without those of the ``optional`` columns that ``width`` has no room for."""
    for name in optional:
        if table_width(header, rows) <= width:
            break
        gone = header.index(name)
        header = [*header[:gone], *header[gone + 1 :]]
        rows = [[*row[:gone], *row[gone + 1 :]] for row in rows]
    return header, list(rows)
