"""Checks that a formula is valid: it is parsed and computed by `formulas`, an independent implementation of the language.

`formulas` (EUPL) is a tool of this check only; nothing of it is in the package.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

WHOLE_COLUMN_ROWS = 12  # a whole column is computed on this many rows
RANGE = re.compile(r"(?:.*!)?\$?([A-Z]+)\$?(\d*):\$?([A-Z]+)\$?(\d*)$")


def _shape(reference: str) -> tuple[int, int]:
    """Rows and columns of a reference such as `B2:C9`, `'MAY 2024'!D:D` or `A1`."""
    found = RANGE.match(reference)
    if not found:
        return 1, 1
    left, top, right, bottom = found.groups()
    rows = int(bottom) - int(top) + 1 if top else WHOLE_COLUMN_ROWS
    return rows, ord(right) - ord(left) + 1


def _cells(reference: str, fill: int) -> Any:
    """Numbers that a date, an amount and a key could all be: days of 2024 as serial numbers, from `fill` on."""
    rows, columns = _shape(reference)
    if rows < 1 or columns < 1:
        raise ValueError(f"the range {reference} is empty or runs backwards")
    return fill + np.arange(rows * columns, dtype=float).reshape(rows, columns)


def value(formula: str) -> Any:
    """The value of a formula on made-up cells; raises ValueError for an invalid formula.

    Errors caused by the made-up cells (#N/A of a lookup, #DIV/0!, #NUM!, a text not found) count as values. #NAME?
    (a function that doesn't exist) and #VALUE! (arguments that don't fit) do not.
    """
    import formulas

    try:
        compiled = formulas.Parser().ast(formula)[1].compile()
        result = compiled(*(_cells(name, 45292) for name in compiled.inputs))
    except (
        Exception
    ) as error:  # the library raises its own classes, and numpy's, for a wrong number of arguments
        raise ValueError(f"{formula}: {type(error).__name__}: {error}") from error
    first = np.asarray(result).ravel()[0]
    not_found = str(first) == "#VALUE!" and ("SEARCH(" in formula or "FIND(" in formula)
    if str(first) in ("#NAME?", "#REF!", "#NULL!", "#VALUE!") and not not_found:
        raise ValueError(f"{formula} gives {first}")
    return first
