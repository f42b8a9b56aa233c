"""Layouts: what a chat template writes for chats with the same roles, if it never looks into their contents.

The text of such a chat is then constant but for its contents, and so are the distances of its turns from them. Filling in
the contents takes a tenth of the time of running the template.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

from mlxsched.data.chat import ChatTemplate, Span
from mlxsched.data.compiled_template import Rendering
from mlxsched.data.holes import BLANK
from mlxsched.data.messages import Messages
from mlxsched.data.outlines import MAX_CHARACTERS, Outline, Place, lengths_before, places, plain_chat
from mlxsched.data.problems import RowProblem
from mlxsched.data.turns import Turns, find_turns

MOST = 1000  # layouts that are kept
COMPARED = 4  # chats of each layout are compared with what the template itself writes
# Every template knows these and may reword what they say. What others say must be in the text.
KNOWN_ROLES = ("user", "assistant", "tool")

Filled = tuple[str, tuple[Span, ...]]  # a chat as text, and its assistant turns


@dataclass(frozen=True)
class Layout:
    """What the template writes for chats of the same roles.

    Args:
        outline: its text.
        turns: begin and end of each assistant message.
        ends: the tokens that end a turn, with how often each occurs.
    """

    outline: Outline
    turns: tuple[tuple[Place, Place], ...]
    ends: tuple[tuple[str, int], ...]

    def fill(self, said: Sequence[str]) -> Filled | None:
        """A chat with these contents; None if it is too long, or a content holds a token that ends a turn."""
        parts = self.outline.fill(said)
        text = "".join(parts)
        if len(text) > MAX_CHARACTERS:
            return None
        for end, count in self.ends:
            if text.count(end) != count:
                return None
        before = lengths_before(parts)
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
        read = plain_chat(messages)
        if read is None:
            return None
        kind, said = read
        layout = self._layout(kind)
        filled = None if layout is None else layout.fill(said)
        if filled is not None and self._agreed[kind] < COMPARED:
            self._agreed[kind] += 1
            self._is_refuted = not self._is_same(cast("Messages", messages), filled)
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
    outline = template.outline(roles)
    if outline is None or any(make not in (None, str.strip) for _, make in outline.contents):
        return None  # any other value made from a content may be empty, and with it the turn
    said = [f"{BLANK}{secrets.token_hex(16)}{BLANK}" for _ in roles]
    rendering = outline.rendering(said)
    turns = find_turns(
        template, [{"role": role, "content": one} for role, one in zip(roles, said, strict=True)]
    )
    if rendering is None or not _are_constant(template, turns, rendering, roles):
        return None
    unwritten = set(range(len(roles))).difference(i for i, _ in outline.contents)
    if any(roles[i] not in KNOWN_ROLES for i in unwritten):
        return None
    found = [*places(chain.from_iterable(turns.spans.values()), outline.fill(said))]
    spans = tuple(zip(found[::2], found[1::2], strict=True))
    return Layout(outline, spans, tuple((end, turns.text.count(end)) for end in template.ends))


def _are_constant(template: ChatTemplate, turns: Turns, rendering: Rendering, roles: tuple[str, ...]) -> bool:
    """Whether the places of ``turns`` follow from the lengths of the contents.

    They do if `find_turns` got them from where messages end. It also looks for end tokens, but a chat with one in its contents
    is not filled in. The count of an end token that can overlap itself would miss some.
    """
    text, last = rendering.text, len(roles) - 1
    assistants = [i for i, role in enumerate(roles) if role == "assistant"]
    if any(end.startswith(end[at:]) for end in template.ends for at in range(1, len(end))):
        return False
    for i in assistants:
        begin = rendering.end_of(i, prompt=True)
        end = len(text) if i == last else rendering.end_of(i + 1)
        if begin is None or end is None or i not in turns.spans or turns.spans[i][0] != begin:
            return False
    if last in assistants:
        closed = [text.rfind(end) + len(end) for end in template.ends if end in text[turns.spans[last][0] :]]
        if text[max(closed, default=len(text)) :].strip():
            return False
    return turns.text == text and not turns.tagged
