"""The text the tiny model is pretrained on: formulas alone, requests alone, notes, and copying in the chat format.

It leaves out what the fine-tuning set teaches: no request appears together with its formula. It teaches the two languages
separately, and the habit of copying names from the user's turn into the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from .parts import PLAIN_SHEETS, QUOTED_SHEETS, WORDS, cell, date, number, table, word
from .requests import request

CELL = re.compile(r"\b[A-H]\d+|\b[A-H]:[A-H]\b|\b(?!I (?:need|want)|I'd)[A-H]\b")
NAME = re.compile("|".join(sorted(WORDS + PLAIN_SHEETS + QUOTED_SHEETS, key=len, reverse=True)))
NUMBER = re.compile(r"\b\d+(?:\.\d+)?\b")
HOW_MANY = (
    1,
    1,
    1,
    2,
    2,
    3,
    4,
    6,
)  # items to copy; with a single item the model can't pick the wrong one, so it learns copying there first


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
    """List the cells, or the names, of a text in order of appearance."""
    text = note(rng) if rng.random() < 0.4 else request(rng).text
    what, pattern = rng.choice((("cells", CELL), ("names", NAME), ("numbers", NUMBER)))
    ask = rng.choice(("Which {} are here? {}", "List the {}: {}")).format(what, text)
    return Document(ask, " ".join(pattern.findall(text)) or "none")


def item(rng: Random) -> str:
    """An item that can be copied: a cell, a word, a number, a day, the name of a sheet, a range."""
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


def items(rng: Random) -> list[str]:
    """Distinct items to copy, often a single one."""
    return list(dict.fromkeys(item(rng) for _ in range(rng.choice(HOW_MANY))))


def echo(rng: Random) -> Document:
    """Repeat a text or a list, forwards or backwards, with commas or without."""
    listed, sign = items(rng), rng.choice((" ", ", ", ",", ":", ";"))
    text = rng.choice((sign.join(listed), sign.join(listed), note(rng), request(rng).formula))
    if rng.random() < 0.3:
        return Document(f"Backwards: {', '.join(listed)}", ", ".join(reversed(listed)))
    return Document(rng.choice(("Repeat: {}", "Copy this: {}", "Say {}", "Type {}")).format(text), text)


def pick(rng: Random) -> Document:
    """Name the item after, or before, another one, or at a given position."""
    listed = items(rng)
    at = rng.randrange(1, len(listed)) if len(listed) > 1 else 0
    before = listed[at - 1]
    ask, answer = rng.choice((
        (f"What comes behind {before}", listed[at]), (f"What stands before {listed[at]}", before),
        ("Name the first", listed[0]), ("Name the last", listed[-1]),
    ))  # fmt: skip
    return Document(f"{ask}? {', '.join(listed)}", answer)


def fill(rng: Random) -> Document:
    """Replace lower-case letters with items: `x is B2, y is Paid. y-x-y` gives `Paid-B2-Paid`."""
    listed = items(rng)
    names = rng.sample("qrstuvwxyz", len(listed))
    link, sign = (
        rng.choice((" is ", "=", " stands for ", " as ")),
        rng.choice(("-", "/", ";", " ", ", ", "(", "+", '"')),
    )
    order = [rng.randrange(len(listed)) for _ in range(rng.randint(1, 5))]
    known = ", ".join(f"{name}{link}{value}" for name, value in zip(names, listed, strict=True))
    asked, answer = (sign.join(values[at] for at in order) for values in (names, listed))
    return Document(rng.choice((f"{known}. Write {asked}", f"Write {asked} with {known}")), answer)


THINGS = (
    "prices", "names", "hours", "key", "limit", "rate", "dates", "scores", "codes", "cities", "stock", "plan", "total",
    "owner", "team", "costs", "budget", "label", "status", "start", "end", "target", "result", "backup",
)  # fmt: skip
PLACES = ("the {} {} in {}", "{1} in {2} for the {0}", "in {2} {1} the {0}", "the {} {} at {}", "{2} holds the {0}",
          "use {2} for the {0}", "take the {0} from {2}", "with {2} as the {0}", "{0}: {2}")  # fmt: skip


def roles(rng: Random) -> Document:
    """Say where things are, then give the locations of some of them in spreadsheet notation."""
    block = table(rng, 3)
    told = [block.range(0), block.range(1), block.range(2), cell(rng), word(rng), cell(rng)]
    rng.shuffle(told)
    told = told[: rng.choice((1, 2, 3, 3, 4))]
    names = rng.sample(THINGS, len(told))
    parts = [rng.choice(PLACES).format(name, "are" if name.endswith("s") else "is", place.text)
             for name, place in zip(names, told, strict=True)]  # fmt: skip
    order = [rng.randrange(len(told)) for _ in range(rng.randint(1, 3))]
    sign = rng.choice((",", " ", ";", "-", ", "))
    text = rng.choice((", ", " and ", "; ")).join(parts) + block.where(rng)
    ask = rng.choice(("{}. Where: {}", "{}. Give {}", "{1}? {0}")).format(
        text, sign.join(names[at] for at in order)
    )
    return Document(ask, sign.join(told[at].formula for at in order))


PLAIN = (
    (lambda rng: request(rng).formula, 2, 0.15), (lambda rng: request(rng).text, 1, 0.08), (note, 1, 0.02),
)  # fmt: skip
CHATS = ((listing, 0.15), (echo, 0.15), (pick, 0.04), (fill, 0.14), (roles, 0.27))


def documents(seed: int, avoid: frozenset[str]) -> Iterator[Document]:
    """An endless stream of documents, without the formulas and requests in `avoid`."""
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
