"""Requests whose answer is a number: totals, counts, extremes, ranks, rounding, nesting."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from .parts import (
    Said,
    cell,
    comparison,
    condition,
    number,
    table,
    text_condition,
)

NOUNS = ("values", "numbers", "amounts", "sales", "prices", "scores", "hours", "costs", "entries", "figures")

AGGREGATES = {
    "SUM": ("the sum of", "the total of"),
    "AVERAGE": ("the average of", "the mean of"),
    "MAX": ("the largest of", "the highest of", "the maximum of"),
    "MIN": ("the smallest of", "the lowest of", "the minimum of"),
    "MEDIAN": ("the median of", "the middle value of"),
    "COUNT": ("how many numbers are in", "the count of numbers in"),
    "COUNTBLANK": ("how many blanks are in", "the number of empty cells in"),
}


def aggregate(rng: Random) -> Said:
    """One function over one range."""
    block = table(rng, 1)
    where = block.range(0)
    name = rng.choices(tuple(AGGREGATES), (5, 5, 3, 3, 2, 2, 2))[0]
    if name in ("SUM", "AVERAGE", "MAX", "MIN", "MEDIAN"):
        start = rng.choice([words for words in AGGREGATES[name] if words.endswith("of")])
        noun = rng.choice(("", "", f"the {rng.choice(NOUNS)} in "))
        return Said(f"{start} {noun}{where.text}{block.where(rng)}", f"{name}({where.formula})")
    return Said(f"{rng.choice(AGGREGATES[name])} {where.text}{block.where(rng)}", f"{name}({where.formula})")


def two_ranges(rng: Random) -> Said:
    """One function over two ranges."""
    block = table(rng, 2, sheet=0.15)
    left, right = block.range(0), block.range(1)
    name = rng.choice(("SUM", "AVERAGE", "MAX", "MIN"))
    start = rng.choice([words for words in AGGREGATES[name] if words.endswith("of")])
    return Said(
        f"{start} {left.text} and {right.text} together{block.where(rng)}",
        f"{name}({left.formula},{right.formula})",
    )


def count_if(rng: Random) -> Said:
    """COUNTIF."""
    block = table(rng, 1)
    where, test = block.range(0), condition(rng)
    text = rng.choice((
        f"how many cells in {where.text}{block.where(rng)} hold a value that {test.text}",
        f"the number of entries in {where.text}{block.where(rng)} where the value {test.text}",
        f"the count of {where.text}{block.where(rng)} where the cell {test.text}",
        f"how often {where.text} {test.text}{block.where(rng)}",
    ))  # fmt: skip
    return Said(text, f"COUNTIF({where.formula},{test.formula})")


def count_ifs(rng: Random) -> Said:
    """COUNTIFS with two criteria."""
    block = table(rng, 2)
    one, two = block.range(0), block.range(1)
    first, second = condition(rng), condition(rng)
    text = rng.choice((
        f"how many rows have {one.text} where it {first.text} and {two.text} where it {second.text}",
        f"the number of rows where {one.text} {first.text} and {two.text} {second.text}",
        f"the count of rows in which {one.text} {first.text} while {two.text} {second.text}",
    ))  # fmt: skip
    return Said(
        text + block.where(rng), f"COUNTIFS({one.formula},{first.formula},{two.formula},{second.formula})"
    )


CONDITIONAL = {
    "SUMIF": ("the total of", "the sum of"),
    "AVERAGEIF": ("the average of", "the mean of"),
    "MAXIFS": ("the largest of", "the highest of", "the maximum of"),
    "MINIFS": ("the smallest of", "the lowest of", "the minimum of"),
}


def sum_if(rng: Random) -> Said:
    """SUMIF, AVERAGEIF, MAXIFS, MINIFS: a value range and one criterion on another range."""
    block = table(rng, 2)
    what, where, test = block.range(0), block.range(1), condition(rng)
    name = rng.choices(tuple(CONDITIONAL), (5, 4, 2, 2))[0]
    link = rng.choice(("where", "for rows where", "if"))
    text = f"{rng.choice(CONDITIONAL[name])} {what.text} {link} {where.text} {test.text}{block.where(rng)}"
    if name.endswith("IFS"):
        return Said(text, f"{name}({what.formula},{where.formula},{test.formula})")
    return Said(text, f"{name}({where.formula},{test.formula},{what.formula})")


def sum_ifs(rng: Random) -> Said:
    """SUMIFS and AVERAGEIFS: a value range and two criteria."""
    block = table(rng, 3)
    what, one, two = block.range(0), block.range(1), block.range(2)
    first, second = text_condition(rng), condition(rng)
    name = rng.choice(("SUMIFS", "SUMIFS", "AVERAGEIFS"))
    start = rng.choice(CONDITIONAL[name[:-1]])
    link = rng.choice(("where", "for rows where", "only when"))
    text = (
        f"{start} {what.text} {link} {one.text} {first.text} and {two.text} {second.text}{block.where(rng)}"
    )
    return Said(text, f"{name}({what.formula},{one.formula},{first.formula},{two.formula},{second.formula})")


ORDINALS = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth"}


def nth(rng: Random) -> Said:
    """LARGE and SMALL."""
    block = table(rng, 1)
    where, place = block.range(0), rng.choice(tuple(ORDINALS))
    name, adjective = rng.choice(
        (("LARGE", "largest"), ("LARGE", "highest"), ("SMALL", "smallest"), ("SMALL", "lowest"))
    )
    return Said(
        f"the {ORDINALS[place]} {adjective} value in {where.text}{block.where(rng)}",
        f"{name}({where.formula},{place})",
    )


def rank(rng: Random) -> Said:
    """RANK over a locked range, best first or lowest first."""
    block = table(rng, 1, whole=0.0)
    what, where = cell(rng), block.range(0, fixed=True)
    if rng.random() < 0.4:
        text = f"the rank of {what.text} within {where.text}{block.where(rng)}, lowest first"
        return Said(text, f"RANK({what.formula},{where.formula},1)")
    text = rng.choice(("the rank of {} within {}", "the place of {} among {}", "where {} ranks in {}"))
    return Said(
        text.format(what.text, where.text) + block.where(rng), f"RANK({what.formula},{where.formula})"
    )


SIMPLE: tuple[tuple[Callable[[Random], Said], float], ...] = (
    (aggregate, 7), (two_ranges, 1.5), (count_if, 5), (count_ifs, 2), (sum_if, 6), (sum_ifs, 1.5), (nth, 2), (rank, 2),
)  # fmt: skip


def simple(rng: Random) -> Said:
    """Any of the above."""
    makers, odds = zip(*SIMPLE, strict=True)
    made: Said = rng.choices(makers, odds)[0](rng)
    return made


def rounded(rng: Random) -> Said:
    """ROUND, ROUNDUP or ROUNDDOWN around another number."""
    inner = rng.choice((aggregate, aggregate, sum_if))(rng)
    digits = rng.choice((0, 1, 2, 2))
    places = "a whole number" if digits == 0 else f"{digits} decimal" + ("s" if digits > 1 else "")
    name, how = rng.choice((
        ("ROUND", "rounded to"), ("ROUND", "rounded to"), ("ROUNDUP", "rounded up to"),
    ))  # fmt: skip
    if how == "rounded to" and digits and rng.random() < 0.4:
        return Said(f"{inner.text}, to {places}", f"ROUND({inner.formula},{digits})")
    return Said(f"{inner.text}, {how} {places}", f"{name}({inner.formula},{digits})")


def combined(rng: Random) -> Said:
    """Two totals and an operator between them."""
    left, right = aggregate(rng), aggregate(rng)
    name, sign = rng.choice(((" minus ", "-"), (" divided by ", "/"), (" plus ", "+")))
    return Said(f"{left.text}{name}{right.text}", f"{left.formula}{sign}{right.formula}")


def threshold(rng: Random) -> Said:
    """A test on a total: a yes or no, or one of two words."""
    inner, how, bound = aggregate(rng), comparison(rng), number(rng)
    return Said(f"{inner.text} is {how.text} {bound}", f"{inner.formula}{how.formula}{bound}")
