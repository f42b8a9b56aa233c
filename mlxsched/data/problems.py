"""Rows that cannot be used: counted, and reported without letting their bytes reach the terminal."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from mlxsched.errors import DataError
from mlxsched.text import closest, counted

SHOWN = 20  # kinds of problems
PLACES = 5  # of each kind
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


def looks_like(words: Iterable[object], names: tuple[str, ...]) -> str:
    """A note on the first of ``words`` that resembles one of ``names``, to append to a message; empty if none does.

    >>> looks_like(["tools", "mesages"], ("messages", "text"))
    '; "mesages" looks like "messages"'
    """
    for word in words:
        short = harmless(str(word), 30)
        near = _nearest(short, names)
        if near not in (None, word):
            return f'; "{short}" looks like "{near}"'
    return ""


@functools.lru_cache(1000)  # a misspelled key is usually misspelled in every row
def _nearest(word: str, names: tuple[str, ...]) -> str | None:
    return closest(word, names, 0.75)


def type_name(value: object) -> str:
    """The JSON name of the type of ``value``, for messages."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    names = {str: "a string", list: "a list", dict: "an object", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)


@dataclass
class Problems:
    """Rows that cannot be used, by what is wrong with them: the first 20 kinds are kept.

    Args:
        count: the number of all such rows.
        shown: of each kind, its first row as ``file:line: what``.
        places: of each kind, by ``what``: ``file:line`` of its first five rows.
        rows: of each kind, likewise: their number.
    """

    count: int = 0
    shown: list[str] = field(default_factory=list)
    places: dict[str, list[str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)

    def add(self, where: str, what: str, text: str = "") -> None:
        """Record that the row at ``where`` can't be used because of ``what``; an excerpt of ``text`` is shown."""
        excerpt = f": {harmless(text)}" if text else ""
        place = harmless(where, 300)
        self.include(Problems(1, [f"{place}: {what}{excerpt}"], {what: [place]}, {what: 1}))

    def include(self, others: Problems) -> None:
        """Add those of later rows."""
        self.count += others.count
        for what, line in zip(others.rows, others.shown, strict=True):
            if what not in self.rows:
                if len(self.shown) == SHOWN:
                    continue
                self.shown.append(line)
            places = self.places.setdefault(what, [])
            places += others.places[what][: PLACES - len(places)]
            self.rows[what] = self.rows.get(what, 0) + others.rows[what]

    @property
    def lines(self) -> list[str]:
        """A line for each kind: its first row, and where the other ones are, or how many there are."""
        if not self.rows:  # from a cache entry that was made before rows were counted by kind
            return self.shown
        return [f"{line}{self._others(what)}" for what, line in zip(self.rows, self.shown, strict=True)]

    def _others(self, what: str) -> str:
        others, known = self.rows[what] - 1, self.places[what][1:]
        if not others:
            return ""
        return f" (and {counted(others, 'more row') if others > len(known) else ', '.join(known)})"

    def error(self, source: str, fix: str) -> DataError:
        """One error that reports all of them; ``fix`` is a sentence without its full stop."""
        lines = [f"{counted(self.count, 'row')} of {harmless(source, 300)} cannot be used:"]
        lines += [f"  {line}" for line in self.lines]
        left = self.count - sum(self.rows.values())
        if left:
            lines.append(f"  ... and {left} more")
        lines.append(f"{fix}.")
        return DataError("\n".join(lines))
