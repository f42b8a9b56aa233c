"""Strings that stand for the contents of a chat, to find out what a chat template does with them.

A `Hole` can be written and joined with other strings. Trimming and splitting it return new holes. Comparing and searching it
return the result for its content. A `Trace` records new holes and results. Anything else raises `LookedInside`.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

_OTHER_TYPES = (bool, int, float, type(None))  # values of these types equal no string
# Filling in splits a content again for each of its parts: for 8000 lines that took 3 s, outside the time limit.
_MOST_PARTS = 16
BLANK = "\x1c"  # white space that no template writes


class LookedInside(Exception):
    """The template does something with a content that a `Trace` can't record."""


class Step(NamedTuple):
    """A string method, its arguments, and the index of an item of its result; None for the whole result."""

    method: str
    arguments: tuple[str | int | None, ...]
    item: int | None = None


class Made(NamedTuple):
    """A value made from the content of a message, which is given by its index in the chat."""

    message: int
    steps: tuple[Step, ...] = ()


class Question(NamedTuple):
    """A question of a template about a content: a method that compares, searches or counts, and its arguments."""

    about: Made
    method: str
    arguments: tuple[str, ...]


class Trace:
    """What a template does with the contents of a chat.

    Args:
        contents: of all messages; None for any contents that are not blank. Then every question raises `LookedInside`.
        count: the number of messages.

    Attributes:
        made: the value that each hole stands for, by the text of the hole.
        answers: the answer to each question about ``contents``, in the order in which the template asked.
    """

    def __init__(self, contents: Sequence[str] | None, count: int) -> None:
        self._stem = secrets.token_hex(16)
        self._kept: list[Hole] = []  # alive while the template may write them
        self.made: dict[str, Made] = {}
        self.answers: dict[Question, object] = {}
        self.holes = [self.hole(Made(i), None if contents is None else contents[i]) for i in range(count)]

    @property
    def pattern(self) -> str:
        """A regular expression for a hole, as a group."""
        return rf"({BLANK}{self._stem}\d+x{BLANK})"

    def is_constant(self, text: str) -> bool:
        """Whether ``text`` contains no part of a hole."""
        return BLANK not in text and self._stem not in text

    def hole(self, made: Made, content: str | None) -> Hole:
        """A new hole for the value ``made``, which is ``content`` in this chat."""
        text = f"{BLANK}{self._stem}{len(self.made)}x{BLANK}"
        hole = Hole(text)
        hole._trace, hole._made, hole._content = self, made, content
        hole._is_filled = made.steps in ((), (STRIP,))
        self.made[text] = made
        self._kept.append(hole)
        _HOLES[text] = hole
        return hole


class Hole(str):
    """A string that stands for a content, or for a value made from it."""

    _trace: Trace | None = None  # None if it is joined with other strings
    _made = Made(0)
    _content: str | None = None
    _is_filled = False  # whether its value can't be empty: a content is never blank

    def __add__(self, other: str) -> str:
        return concatenate((self, other))

    def __radd__(self, other: str) -> str:
        return concatenate((other, self))

    def __bool__(self) -> bool:
        return self._is_filled or bool(self._ask("__ne__", ""))

    def __eq__(self, other: object) -> bool:
        return type(other) not in _OTHER_TYPES and bool(self._ask("__eq__", other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, other: str, /) -> bool:  # type: ignore[override]
        return bool(self._ask("__contains__", other))

    def startswith(self, other: str, /) -> bool:  # type: ignore[override]
        """Whether the content starts with ``other``."""
        return bool(self._ask("startswith", other))

    def endswith(self, other: str, /) -> bool:  # type: ignore[override]
        """Whether the content ends with ``other``."""
        return bool(self._ask("endswith", other))

    def strip(self, characters: str | None = None, /) -> Hole:
        """A hole for the trimmed content."""
        return self._trimmed("strip", characters)

    def lstrip(self, characters: str | None = None, /) -> Hole:
        """A hole for the content trimmed at its beginning."""
        return self._trimmed("lstrip", characters)

    def rstrip(self, characters: str | None = None, /) -> Hole:
        """A hole for the content trimmed at its end."""
        return self._trimmed("rstrip", characters)

    def split(self, separator: str, most: int = -1, /) -> list[Hole]:  # type: ignore[override]
        """A hole for each part. Their number is recorded as a question."""
        self._ask("count", separator)
        if type(most) is not int or self._content is None:
            raise LookedInside
        parts = self._content.split(separator, most)
        if len(parts) > _MOST_PARTS:
            raise LookedInside
        return [self._make(Step("split", (separator, most), i), part) for i, part in enumerate(parts)]

    def _trimmed(self, method: str, characters: str | None) -> Hole:
        content = None if self._content is None else getattr(self._content, method)(characters)
        return self._make(Step(method, (characters,)), content)

    def _make(self, step: Step, content: str | None) -> Hole:
        if self._trace is None or not all(type(each) in (str, int, type(None)) for each in step.arguments):
            raise LookedInside
        if self._made.steps[-1:] == (step,) and step.item is None:  # trimming twice
            return self
        return self._trace.hole(Made(self._made.message, (*self._made.steps, step)), content)

    def _ask(self, method: str, *arguments: Any) -> object:
        if self._trace is None or self._content is None or any(type(each) is not str for each in arguments):
            raise LookedInside
        question = Question(self._made, method, arguments)
        return self._trace.answers.setdefault(question, getattr(self._content, method)(*arguments))


STRIP = Step("strip", (None,))
_HOLES: WeakValueDictionary[str, Hole] = WeakValueDictionary()  # by their text


def _refused(*_: object, **__: object) -> Any:
    """Refused: it depends on the content."""
    raise LookedInside


_NEEDED = {
    "__class__",
    "__new__",
    "__init__",
    "__getattribute__",
    "__setattr__",
    "__str__",
    "__doc__",
    "__dict__",
}
for _name in {*dir(str), "__rmod__"} - {*vars(Hole)} - _NEEDED | {"__hash__"}:
    if callable(getattr(str, _name, _refused)) and not _name.startswith("__init_sub"):
        setattr(Hole, _name, _refused)


class HoledMessage(dict[str, str]):
    """A message whose content is a `Hole`. Iterating over it is refused, too: a chat may have its keys in another order."""

    __iter__ = keys = values = items = copy = _refused


def concatenate(parts: Iterable[str]) -> str:
    """Like "".join, but a result that contains a hole is a hole, even where Jinja made the hole a plain string."""
    text = "".join(parts)
    if BLANK not in text:
        return text
    hole = _HOLES.get(text)
    if hole is None:
        hole = Hole(text)
        hole._is_filled = any(text.split(BLANK)[::2])  # the text between the holes in it
    return hole
