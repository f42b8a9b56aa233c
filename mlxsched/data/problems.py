"""Rows that cannot be used: collected, counted, and shown without letting their bytes reach the terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from mlxsched.errors import DataError
from mlxsched.text import counted

SHOWN = 20
EXCERPT = 80


class RowProblem(Exception):
    """Why one row cannot be used: a line of a `DataError`. ``excerpt`` is the text at fault, if known."""

    def __init__(self, what: str, excerpt: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.excerpt = excerpt


def harmless(text: str, limit: int = EXCERPT) -> str:
    """``text`` on one line, at most ``limit`` characters, with escapes for what can't be seen.

    >>> harmless("red" + chr(27) + "[31m" + chr(10))
    'red\\\\x1b[31m\\\\n'
    """
    pieces = [
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[:limit]
    ]
    shown = "".join(pieces)
    return shown[:limit] + "..." if len(text) > limit or len(shown) > limit else shown


@dataclass
class Problems:
    """The rows that could not be used: all of them counted, the first 20 kept as ``file:line: what``."""

    count: int = 0
    shown: list[str] = field(default_factory=list)

    def add(self, where: str, what: str, text: str = "") -> None:
        """Note that the row at ``where`` cannot be used because of ``what``; ``text`` is shown, shortened."""
        self.count += 1
        if len(self.shown) < SHOWN:
            excerpt = f": {harmless(text)}" if text else ""
            self.shown.append(f"{harmless(where, 300)}: {what}{excerpt}")

    def error(self, source: str) -> DataError:
        """The one error that reports them all."""
        lines = [f"{counted(self.count, 'row')} of {harmless(source, 300)} cannot be used:"]
        lines += [f"  {line}" for line in self.shown]
        if self.count > len(self.shown):
            lines.append(f"  ... and {self.count - len(self.shown)} more")
        lines.append("Mend them, or go on without them with --skip-bad-rows.")
        return DataError("\n".join(lines))
