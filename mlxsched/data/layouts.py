"""Layouts: what a chat template writes for chats with the same roles, if it never looks into their contents.

The text of such a chat is then constant but for its contents, and so are the distances of its turns from them. Filling in
the contents takes a tenth of the time of running the template.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import cast

from mlxsched.data.chat import ChatTemplate, Span
from mlxsched.data.compiled_template import Rendering
from mlxsched.data.holes import Hole, HoledMessage
from mlxsched.data.messages import Messages
from mlxsched.data.problems import RowProblem
from mlxsched.data.turns import Turns, find_turns

_BLANK = "\x1c"  # white space that no template writes
MOST = 1000  # layouts that are kept
COMPARED = 4  # chats of each layout are compared with what the template itself writes
_ROLES = ("user", "assistant", "system")
_MAX_CHARACTERS = 2**20  # of a chat; longer ones are left to the template
# Every template knows these and may reword what they say. What others say must be in the text.
KNOWN_ROLES = ("user", "assistant", "tool")

Filled = tuple[str, tuple[Span, ...]]  # a chat as text, and its assistant turns
Place = tuple[int, int]  # a position in the text: the number of contents before it, and of other characters


@dataclass(frozen=True)
class Layout:
    """What the template writes for chats of the same roles.

    Args:
        parts: the constant text, and an empty string for each content.
        contents: of each content: the index of its message, and whether it is trimmed.
        turns: begin and end of each assistant message.
        ends: the tokens that end a turn, with how often each occurs.
    """

    parts: tuple[str, ...]
    contents: tuple[tuple[int, bool], ...]
    turns: tuple[tuple[Place, Place], ...]
    ends: tuple[tuple[str, int], ...]

    def fill(self, said: Sequence[str]) -> Filled | None:
        """A chat with these contents; None if it is too long, or a content holds a token that ends a turn."""
        parts = [*self.parts]
        parts[1::2] = values = [said[i].strip() if trimmed else said[i] for i, trimmed in self.contents]
        text = "".join(parts)
        if len(text) > _MAX_CHARACTERS:
            return None
        for end, count in self.ends:
            if text.count(end) != count:
                return None
        before = [0, *accumulate(map(len, values))]
        return text, tuple([(a + before[m], b + before[n]) for (m, a), (n, b) in self.turns])


class Layouts:
    """The layouts of one template."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[tuple[str, ...], Layout | None] = {}
        self._agreed: Counter[tuple[str, ...]] = Counter()
        self._is_refuted = False

    def turns(self, messages: object) -> Turns | None:
        """What `find_turns` returns for a chat without tools; None if the template must be run."""
        filled = self.fill(messages)
        return None if filled is None else _as_turns(cast("Messages", messages), filled)

    def fill(self, messages: object) -> Filled | None:
        """Text and spans of `turns`: a layout has a span for every assistant message."""
        if type(messages) is not list or not messages:
            return None
        roles, said = [], []
        for message in messages:
            if type(message) is not dict or len(message) != 2:
                return None
            role, content = message.get("role"), message.get("content")
            if type(content) is not str or not content or content.isspace() or role not in _ROLES:
                return None
            roles.append(role)
            said.append(content)
        layout = self._layout(kind := tuple(roles))
        filled = None if layout is None else layout.fill(said)
        if filled is not None and self._agreed[kind] < COMPARED:
            self._agreed[kind] += 1
            self._is_refuted = not self._is_same(messages, filled)
        return None if self._is_refuted else filled

    def _is_same(self, messages: Messages, filled: Filled) -> bool:
        try:
            return find_turns(self._template, messages) == _as_turns(messages, filled)
        except RowProblem:
            return False

    def _layout(self, roles: tuple[str, ...]) -> Layout | None:
        if (
            self._is_refuted
        ):  # one layout was wrong, and the others have not been compared with every content either
            return None
        if roles not in self._known:
            if len(self._known) >= MOST or not self._template.is_proved:
                return None
            self._known[roles] = find_layout(self._template, roles)
        return self._known[roles]


def _as_turns(messages: Messages, filled: Filled) -> Turns:
    assistants = (i for i, message in enumerate(messages) if message["role"] == "assistant")
    return Turns(filled[0], dict(zip(assistants, filled[1], strict=True)))


def find_layout(template: ChatTemplate, roles: tuple[str, ...]) -> Layout | None:
    """The layout of chats with these roles, if there is one."""
    stem = secrets.token_hex(16)
    holes = [_hole(f"{stem}{index}x") for index in range(len(roles))]
    outline = template.outline(
        [HoledMessage(role=role, content=hole) for role, hole in zip(roles, holes, strict=True)]
    )
    if outline is None:
        return None
    text = outline.text
    numbers = {str(hole): (i, False) for i, hole in enumerate(holes)}
    numbers |= {str(hole.trimmed): (i, True) for i, hole in enumerate(holes)}
    # One pattern for all: with an alternative for each, the time is quadratic in their number, 0.6 s for 1000 messages.
    parts = re.split(rf"({_BLANK}{stem}\d+x{_BLANK}|{stem}\d+x)", text)
    contents = tuple(numbers[part] for part in parts[1::2])
    unwritten = set(range(len(roles))).difference(i for i, _ in contents)
    plain = [{"role": role, "content": str(hole)} for role, hole in zip(roles, holes, strict=True)]
    turns = find_turns(template, plain)
    blanks = 2 * sum(not trimmed for _, trimmed in contents)
    if not _are_constant(template, turns, outline, roles) or text.count(_BLANK) != blanks:
        return None
    if any(roles[i] not in KNOWN_ROLES for i in unwritten):
        return None
    places = [*_places(chain.from_iterable(turns.spans.values()), parts)]
    parts[1::2] = [""] * len(contents)
    spans = tuple(zip(places[::2], places[1::2], strict=True))
    return Layout(tuple(parts), contents, spans, tuple((end, text.count(end)) for end in template.ends))


def _hole(name: str) -> Hole:
    hole, trimmed = Hole(_BLANK + name + _BLANK), Hole(name)
    hole.trimmed = trimmed.trimmed = trimmed
    return hole


def _are_constant(template: ChatTemplate, turns: Turns, outline: Rendering, roles: tuple[str, ...]) -> bool:
    """Whether the places of ``turns`` follow from the lengths of the contents.

    They do if `find_turns` got them from where messages end. It also looks for end tokens, but a chat with one in its contents
    is not filled in. The count of an end token that can overlap itself would miss some.
    """
    text, last = outline.text, len(roles) - 1
    assistants = [i for i, role in enumerate(roles) if role == "assistant"]
    if any(end.startswith(end[at:]) for end in template.ends for at in range(1, len(end))):
        return False
    for i in assistants:
        begin = outline.end_of(i, prompt=True)
        end = len(text) if i == last else outline.end_of(i + 1)
        if begin is None or end is None or i not in turns.spans or turns.spans[i][0] != begin:
            return False
    if last in assistants:
        closed = [text.rfind(end) + len(end) for end in template.ends if end in text[turns.spans[last][0] :]]
        if text[max(closed, default=len(text)) :].strip():
            return False
    return turns.text == text and not turns.tagged


def _places(positions: Iterable[int], parts: Sequence[str]) -> Iterator[Place]:
    """Positions in the text of ``parts``, of which every other one is a content."""
    begins = [0, *accumulate(map(len, parts))]
    constant = [0, *accumulate(0 if index % 2 else len(part) for index, part in enumerate(parts))]
    for position in positions:
        index = min(bisect_right(begins, position), len(parts)) - 1
        yield index // 2, constant[index] + position - begins[index]
