"""The text the tiny model is pretrained on: formulas alone, requests alone, notes, and copying in the chat format.

It leaves out what the fine-tuning set teaches: no request ever stands beside its formula. What it does give is the
two languages, each on its own, and the habit of copying names from the user's turn into the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from .parts import WORDS, cell, date, number, table, word
from .requests import request

CELL = re.compile(r"\$?[A-P]\$?\d+|\b[A-P]:[A-P]\b")


class Document(NamedTuple):
    """One text; with a prompt it is a chat of one turn, without one it is plain text."""

    prompt: str
    text: str


def note(rng: Random) -> str:
    """A sentence about a sheet, no formula asked for."""
    block, where, one = table(rng, 2, sheet=0.0), cell(rng), word(rng)
    left, right = block.range(0), block.range(1)
    return rng.choice((
        f"{left.text} was checked on {date(rng).text}, {right.text} was not.",
        f"The entry {one.text} in {where.text} belongs to {left.text}.",
        f"See {where.text} and {cell(rng).text} for the {one.text} plan, then {right.text}.",
        f"{one.text} has {number(rng)} rows in {left.text} since {date(rng).text}.",
        f"Colour {left.text} like {where.text}, and {right.text} like {cell(rng).text}.",
        f"On the {block_sheet(rng)} sheet {left.text} is locked; {where.text} says {one.text}.",
    ))  # fmt: skip


def block_sheet(rng: Random) -> str:
    """The name of a sheet."""
    return table(rng, 1, sheet=1.0).sheet


def listing(rng: Random) -> Document:
    """Name the cells of a text, as they stand there."""
    text = " ".join(note(rng) for _ in range(rng.randint(1, 2)))
    found = CELL.findall(text)
    ask = rng.choice(("Which cells are named here? {}", "List the cells: {}", "{} Name all cells of that."))
    return Document(ask.format(text), " ".join(found) if found else "none")


def item(rng: Random) -> str:
    """A thing that could be copied: a cell, a word, a number, a day, the name of a sheet, a range."""
    kind = rng.random()
    if kind < 0.35:
        return cell(rng).formula
    if kind < 0.6:
        return rng.choice(WORDS)
    if kind < 0.72:
        return number(rng)
    if kind < 0.8:
        return block_sheet(rng)
    return date(rng).text if kind < 0.85 else table(rng, 1, sheet=0.0).range(0).formula


def items(rng: Random, most: int) -> list[str]:
    """Two or more different things to copy."""
    return list(dict.fromkeys(item(rng) for _ in range(rng.randint(2, most))))


def echo(rng: Random) -> Document:
    """Repeat a text or a list, forwards or backwards, with commas or without."""
    listed, sign = items(rng, 8), rng.choice((" ", ", ", ",", ":", ";"))
    text = rng.choice((sign.join(listed), sign.join(listed), note(rng), request(rng).formula))
    if rng.random() < 0.3:
        return Document(f"Backwards: {', '.join(listed)}", ", ".join(reversed(listed)))
    return Document(rng.choice(("Repeat: {}", "Copy this: {}", "Say {}", "Type {}")).format(text), text)


def pick(rng: Random) -> Document:
    """Name the thing that stands behind, or before, another one, or at a place."""
    listed = items(rng, 8)
    at = rng.randrange(1, len(listed)) if len(listed) > 1 else 0
    before = listed[at - 1]
    ask, answer = rng.choice((
        (f"What comes behind {before}", listed[at]), (f"What stands before {listed[at]}", before),
        ("Name the first", listed[0]), ("Name the last", listed[-1]),
    ))  # fmt: skip
    return Document(f"{ask}? {', '.join(listed)}", answer)


def fill(rng: Random) -> Document:
    """Put things in the place of small letters: `x is B2, y is Paid. y-x-y` gives `Paid-B2-Paid`."""
    listed = items(rng, 5)
    names = rng.sample("qrstuvwxyz", len(listed))
    link, sign = rng.choice((" is ", "=", " stands for ", " as ")), rng.choice(("-", "/", ";", " ", ", ", "(", "+", '"'))
    order = [rng.randrange(len(listed)) for _ in range(rng.randint(2, 6))]
    known = ", ".join(f"{name}{link}{value}" for name, value in zip(names, listed, strict=True))
    asked, answer = (sign.join(values[at] for at in order) for values in (names, listed))
    return Document(rng.choice((f"{known}. Write {asked}", f"Write {asked} with {known}")), answer)


PLAIN = (
    (lambda rng: request(rng).formula, 4, 0.25), (lambda rng: request(rng).text, 3, 0.2), (note, 3, 0.03),
)  # fmt: skip
CHATS = ((listing, 0.1), (echo, 0.14), (pick, 0.1), (fill, 0.18))


def documents(seed: int, avoid: frozenset[str]) -> Iterator[Document]:
    """Endless documents; no formula and no request in `avoid` is among them."""
    rng = Random(seed)
    odds = [kind[-1] for kind in PLAIN + CHATS]
    while True:
        kind = rng.choices(PLAIN + CHATS, odds)[0]
        if len(kind) == 2:
            made = kind[0](rng)
        else:
            made = Document("", "\n".join(kind[0](rng) for _ in range(rng.randint(1, kind[1]))))
        if not avoid.intersection(made.text.split("\n")):
            yield made
