"""The text the tiny model is pretrained on: formulas alone, requests alone, notes, and copying in the chat format.

It leaves out what the fine-tuning set teaches: no request ever stands beside its formula. What it does give is the
two languages, each on its own, and the habit of copying names from the user's turn into the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from .parts import cell, date, number, table, word
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


def echo(rng: Random) -> Document:
    """Repeat a text, a word or a value."""
    text = rng.choice(
        (note, lambda r: request(r).formula, lambda r: f"{word(r).formula},{cell(r).formula},{number(r)}")
    )(rng)
    ask = rng.choice(("Repeat: {}", "Copy this: {}", "Say {}", "Type {}"))
    return Document(ask.format(text), text)


def documents(seed: int, avoid: frozenset[str]) -> Iterator[Document]:
    """Endless documents; no formula and no request in `avoid` is among them."""
    rng = Random(seed)
    while True:
        kind = rng.random()
        if kind < 0.4:
            lines = [request(rng).formula for _ in range(rng.randint(1, 4))]
        elif kind < 0.6:
            lines = [request(rng).text for _ in range(rng.randint(1, 3))]
        elif kind < 0.65:
            lines = [note(rng) for _ in range(rng.randint(1, 3))]
        else:
            made = (listing if kind < 0.8 else echo)(rng)
            if made.text not in avoid:
                yield made
            continue
        if not avoid.intersection(lines):
            yield Document("", "\n".join(lines))
