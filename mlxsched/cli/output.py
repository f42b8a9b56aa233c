"""What the commands print: results on stdout, notes on stderr, no colour codes where nobody can see them."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from mlxsched.runs.json_file import finite

if TYPE_CHECKING:
    from rich.console import Console

# ESC sequences (CSI, OSC up to BEL or ST, two-byte ones), then every control character but tab and newline.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-_]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"
)


def safe(text: str) -> str:
    """Return ``text`` without control and escape sequences, for text that came from a file or a model.

    >>> safe("\\x1b[31mred\\x1b[0m\\tand\\x07 plain")
    'red\\tand plain'
    """
    return _CONTROL.sub("", text)


def rate(value: float) -> str:
    """Return a learning rate as people write it.

    >>> rate(2e-4), rate(0.00035), rate(0.05), rate(0.0)
    ('2e-4', '3.5e-4', '0.05', '0')
    """
    if not math.isfinite(value) or value == 0 or abs(value) >= 0.01:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def print_json(value: Any) -> None:
    """Print ``value`` on stdout as JSON, floats at full precision."""
    click.echo(json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False))


def note(text: str) -> None:
    """Say something beside the result, on stderr."""
    click.echo(text, err=True)


def warn(text: str) -> None:
    """Say on stderr that something deserves attention."""
    click.echo(f"Warning: {text}", err=True)


def console(*, stderr: bool = False) -> Console:
    """Return a rich console; rich itself drops colours off a terminal and under ``NO_COLOR``.

    Off a terminal lines may be long, so that ``grep`` finds whole ones.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else 200, highlight=False, markup=False)


def table(
    rows: Iterable[Sequence[object]], *, header: Sequence[str] = (), title: str = "", stderr: bool = False
) -> None:
    """Print ``rows`` in aligned columns; numbers go to the right."""
    from rich.table import Table
    from rich.text import Text

    rows = [tuple(row) for row in rows]
    grid = Table(
        *header, title=title or None, title_justify="left", box=None, show_header=bool(header), pad_edge=False
    )
    for position in range(len(header), max(map(len, rows), default=0)):
        grid.add_column(str(position))
    for column, cells in zip(grid.columns, zip(*rows, strict=True), strict=False):
        column.justify = "right" if all(isinstance(cell, (int, float)) for cell in cells) else "left"
        column.overflow = "fold"
    for row in rows:
        grid.add_row(*(Text(safe(str(cell))) for cell in row))
    console(stderr=stderr).print(grid)
