"""Rows that cannot be used: counted, and reported without letting their bytes reach the terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from mlxsched.errors import DataError
from mlxsched.text import counted

SHOWN = 20
EXCERPT = 80


class RowProblem(Exception):
    """The reason why one row cannot be used. It becomes one line of a `DataError`; ``excerpt`` is the text at fault."""

    def __init__(self, what: str, excerpt: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.excerpt = excerpt


def harmless(text: str, limit: int = EXCERPT) -> str:
    """``text`` on one line of at most ``limit`` characters, with escapes for what is not printable.

    >>> harmless("red" + chr(27) + "[31m" + chr(10))
    'red\\\\x1b[31m\\\\n'
    """
    pieces = [
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[:limit]
    ]
    shown = "".join(pieces)
    return shown[:limit] + "..." if len(text) > limit or len(shown) > limit else shown


def type_name(value: object) -> str:
    """The JSON name of the type of ``value``, for messages."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


@dataclass
class Problems:
    """Rows that cannot be used. All are counted, and the first 20 are kept as ``file:line: what``."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, text: str = "") -> None:
        """Record that the row at ``where`` can't be used because of ``what``; an excerpt of ``text`` is shown."""
        self.count += 1
        if len(self.shown) < SHOWN:
            excerpt = f": {harmless(text)}" if text else ""
            self.shown.append(f"{harmless(where, 300)}: {what}{excerpt}")

    def include(self, others: Problems) -> None:
        """Add those of later rows."""
        self.count += others.count
        self.shown += others.shown[: SHOWN - len(self.shown)]

    def error(self, source: str, fix: str) -> DataError:
        """One error that reports all of them; ``fix`` is a sentence without its full stop."""
        lines = [f"{counted(self.count, 'row')} of {harmless(source, 300)} cannot be used:"]
        lines += [f"  {line}" for line in self.shown]
        if self.count > len(self.shown):
            lines.append(f"  ... and {self.count - len(self.shown)} more")
        lines.append(f"{fix}.")
        return DataError("\n".join(lines))
