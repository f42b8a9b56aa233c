"""Outlines: what a chat template writes for chats with the same roles, with gaps for the contents.

A template that asks nothing about contents has one outline for each sequence of roles. Other templates search contents, for
example for the end of a thought. An outline then holds for the chats that give the same answers. Filling in the contents takes
about a twentieth of the time of running the template.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from operator import methodcaller
from typing import Any

from mlxsched.data.compiled_template import Rendering
from mlxsched.data.holes import STRIP, Made, Question, Trace
from mlxsched.data.messages import Messages
from mlxsched.data.problems import RowProblem

MOST = 2000  # sequences of roles
COMPARED = 4  # chats of each outline are compared with what the template itself writes
_MOST_ATTEMPTS = 8  # to find an outline for a sequence of roles
_MOST_MESSAGES = 64  # in a chat
_MOST_KEPT = 50_000  # messages in all outlines together, which take about 0.75 KB each
# Outlines are given up after a loss of `_PATIENCE` points. Filling in a chat saves the time of several searches without a match,
# which take 2 to 17% of a run of the template each. A failed attempt to find an outline takes up to ten runs.
_PATIENCE, _FILLED, _IN_VAIN, _FAILED = 1000, 4, 1, 20
_ROLES = ("user", "assistant", "system")
MAX_CHARACTERS = 2**20  # of a chat; longer ones are left to the template

Place = tuple[int, int]  # a position in the text: the number of contents before it, and of other characters
Make = Callable[[str], Any]
Key = tuple[tuple[str, ...], bool]  # roles, and whether a generation prompt follows


def plain_chat(messages: object) -> tuple[tuple[str, ...], list[str]] | None:
    """Roles and contents of a chat; None if its messages have other keys or roles, or a content is blank."""
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
    return tuple(roles), said


@dataclass(frozen=True)
class Outline:
    """What the template writes for some chats.

    Args:
        parts: the constant text, and an empty string for each content.
        contents: for each content, the index of its message and the function applied to it; None if it is written unchanged.
        answers: for each question about the contents, the index of the message, a function that asks, and the answer required.
        cuts: as in `Rendering`.
        tails: as in `Rendering`.
    """

    parts: tuple[str, ...]
    contents: tuple[tuple[int, Make | None], ...]
    answers: tuple[tuple[int, Make, object], ...]
    cuts: tuple[tuple[int, Place], ...]
    tails: tuple[str, str]

    def fits(self, said: Sequence[str]) -> bool:
        """Whether the outline holds for a chat with these contents."""
        return all(ask(said[index]) == answer for index, ask, answer in self.answers)

    def fill(self, said: Sequence[str]) -> list[str]:
        """The parts of the text of a chat with these contents."""
        parts = [*self.parts]
        parts[1::2] = [said[i] if make is None else make(said[i]) for i, make in self.contents]
        return parts

    def rendering(self, said: Sequence[str]) -> Rendering | None:
        """The text of a chat with these contents; None if it is too long."""
        parts = self.fill(said)
        text = "".join(parts)
        if len(text) > MAX_CHARACTERS:
            return None
        before = lengths_before(parts) if self.cuts else ()
        return Rendering(text, {k: before[n] + constant for k, (n, constant) in self.cuts}, self.tails)


class Outlines:
    """The outlines of one template.

    Args:
        learn: makes an outline for roles, contents, and whether a generation prompt follows.
        render: runs the template.
    """

    def __init__(
        self,
        learn: Callable[[Sequence[str], Sequence[str], bool], Outline | None],
        render: Callable[[Messages, bool], Rendering],
    ) -> None:
        self._learn, self._render = learn, render
        self._known: dict[Key, list[Outline]] = {}
        self._attempts: Counter[Key] = Counter()
        self._agreed: Counter[int] = Counter()
        self._is_refuted = False
        self._patience = _PATIENCE
        self._kept = 0  # messages in all outlines

    def rendering(self, messages: Messages, *, prompt: bool) -> Rendering | None:
        """What the template would write, without running it; None if that is unknown."""
        is_off = self._is_refuted or self._patience < 0
        read = None if is_off or len(messages) > _MOST_MESSAGES else plain_chat(messages)
        if read is None:
            return None
        roles, said = read
        outline = self._outline((roles, prompt), said)
        found = None if outline is None else outline.rendering(said)
        if outline is None or found is None or self._agreed[id(outline)] >= COMPARED:
            return found
        self._agreed[id(outline)] += 1
        self._is_refuted = not self._is_same(found, messages, prompt)
        return None if self._is_refuted else found

    def _outline(self, key: Key, said: Sequence[str]) -> Outline | None:
        known = self._known.get(key)
        if known is None:
            if len(self._known) < MOST:
                self._known[key] = []  # learn from the next one: this chat may be the only one with its roles
            return None
        for outline in known:
            if outline.fits(said):
                self._patience = min(self._patience + _FILLED, _PATIENCE)
                return outline
        self._patience -= _IN_VAIN
        if self._attempts[key] == _MOST_ATTEMPTS or self._kept > _MOST_KEPT:
            return None
        self._attempts[key] += 1
        learned = self._learn(key[0], said, key[1])
        if learned is None:
            self._patience -= _FAILED
        else:
            known.append(learned)
            self._kept += len(said)
        return learned

    def _is_same(self, found: Rendering, messages: Messages, prompt: bool) -> bool:
        try:
            return self._render(messages, prompt) == found
        except RowProblem:
            return False


def outline_of(trace: Trace, rendering: Rendering) -> Outline | None:
    """The outline of the chats with the answers in ``trace``, from the rendering of its holes; None if one was cut."""
    parts = re.split(trace.pattern, rendering.text)
    made = [trace.made[hole] for hole in parts[1::2]]
    cuts = tuple(zip(rendering.cuts, places(rendering.cuts.values(), parts), strict=True))
    parts[1::2] = [""] * len(made)
    if not trace.is_constant("".join((*parts, *rendering.tails))):
        return None
    return Outline(
        tuple(parts),
        tuple((each.message, _make(each) if each.steps else None) for each in made),
        tuple((asked.about.message, _ask(asked), answer) for asked, answer in trace.answers.items()),
        cuts,
        rendering.tails,
    )


def _make(made: Made) -> Make:
    if made.steps == (STRIP,):  # the most frequent case: faster without a function of ours
        return str.strip
    return partial(_after, [(methodcaller(step.method, *step.arguments), step.item) for step in made.steps])


def _after(steps: Sequence[tuple[Make, int | None]], content: str) -> str:
    for call, item in steps:
        content = call(content) if item is None else call(content)[item]
    return content


def _ask(question: Question) -> Make:
    ask = methodcaller(question.method, *question.arguments)
    if not question.about.steps:
        return ask
    make = _make(question.about)
    return lambda content: ask(make(content))


def places(positions: Iterable[int], parts: Sequence[str]) -> Iterator[Place]:
    """Positions in the text of ``parts``, of which every other one is a content."""
    begins = [0, *accumulate(map(len, parts))]
    constant = [0, *accumulate(0 if index % 2 else len(part) for index, part in enumerate(parts))]
    for position in positions:
        index = min(bisect_right(begins, position), len(parts)) - 1
        yield index // 2, constant[index] + position - begins[index]


def lengths_before(parts: Sequence[str]) -> list[int]:
    """The number of characters in the first n contents among ``parts``, for each n."""
    return [0, *accumulate(map(len, parts[1::2]))]
