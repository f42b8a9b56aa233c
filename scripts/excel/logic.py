"""Requests that decide or look something up."""

from __future__ import annotations

from random import Random

from .numeric import threshold
from .parts import (
    COLUMNS,
    Said,
    Table,
    cell,
    cells,
    comparison,
    number,
    table,
    word,
)


def test(rng: Random) -> Said:
    """A comparison of a cell with a number, a text, another cell, or nothing."""
    kind = rng.random()
    if kind < 0.4:
        where, how = cell(rng), comparison(rng)
        bound = number(rng)
        return Said(f"{where.text} is {how.text} {bound}", f"{where.formula}{how.formula}{bound}")
    if kind < 0.65:
        where, value = cell(rng), word(rng)
        says, sign = rng.choice((("is", "="), ("equals", "="), ("is not", "<>")))
        return Said(f"{where.text} {says} {value.text}", f"{where.formula}{sign}{value.formula}")
    if kind < 0.85:
        left, right = cells(rng, 2)
        how = comparison(rng)
        return Said(f"{left.text} is {how.text} {right.text}", f"{left.formula}{how.formula}{right.formula}")
    where = cell(rng)
    return rng.choice((
        Said(f"{where.text} is blank", f"ISBLANK({where.formula})"),
        Said(f"{where.text} is empty", f"ISBLANK({where.formula})"),
        Said(f"{where.text} is a number", f"ISNUMBER({where.formula})"),
    ))  # fmt: skip


def tests(rng: Random) -> Said:
    """One test, or two under AND, OR or NOT."""
    kind = rng.random()
    first = test(rng)
    if kind < 0.65:
        return first
    if kind < 0.7:
        return Said(f"it is not true that {first.text}", f"NOT({first.formula})")
    second = test(rng)
    if kind < 0.87:
        says = rng.choice(("{} and {}", "both {} and {}"))
        return Said(says.format(first.text, second.text), f"AND({first.formula},{second.formula})")
    says = rng.choice(("{} or {}", "either {} or {}"))
    return Said(says.format(first.text, second.text), f"OR({first.formula},{second.formula})")


def result(rng: Random) -> Said:
    """What an IF gives: a text, a number, a cell, nothing, or a sum."""
    kind = rng.random()
    if kind < 0.55:
        return word(rng)
    if kind < 0.7:
        value = number(rng)
        return Said(value, value)
    return cell(rng) if kind < 0.77 else Said("nothing", '""')


def if_else(rng: Random) -> Said:
    """IF, as an imperative."""
    check = tests(rng) if rng.random() < 0.96 else threshold(rng)
    yes, no = result(rng), result(rng)
    text = rng.choice((
        f"show {yes.text} if {check.text}, otherwise {no.text}",
        f"if {check.text} return {yes.text}, else {no.text}",
        f"give {yes.text} when {check.text} and {no.text} when not",
        f"put {yes.text} if {check.text}; in all other cases {no.text}",
        f"check whether {check.text} and answer {yes.text} or else {no.text}",
    ))  # fmt: skip
    return Said(text, f"IF({check.formula},{yes.formula},{no.formula})")


def _key(rng: Random) -> Said:
    """What is looked up: a cell or a text."""
    return cell(rng) if rng.random() < 0.7 else word(rng)


def _find(rng: Random, key: Said, keys: Said, values: Said, block: Table) -> str:
    """The words of a lookup."""
    return rng.choice((
        f"look up {key.text} in {keys.text} and return the match from {values.text}",
        f"find {key.text} in {keys.text} and give what stands in {values.text}",
        f"search for {key.text} in {keys.text} and bring back {values.text}",
    )) + block.where(rng)  # fmt: skip


def xlookup(rng: Random) -> Said:
    """XLOOKUP, with or without an answer for a miss."""
    block = table(rng, 2, sheet=0.45)
    key, keys, values = _key(rng), block.range(0), block.range(1)
    text, ends = _find(rng, key, keys, values, block), f"{key.formula},{keys.formula},{values.formula}"
    if rng.random() < 0.3:
        miss = rng.choice(
            (word(rng), Said("0", "0"), Said("nothing", '""'), Said('"not found"', '"not found"'))
        )
        says = rng.choice((", or {} if there is no match", ", with {} when it is missing"))
        return Said(text + says.format(miss.text), f"XLOOKUP({ends},{miss.formula})")
    return Said(text, f"XLOOKUP({ends})")


def index_match(rng: Random) -> Said:
    """INDEX with MATCH, asked for by name or by age."""
    block = table(rng, 2, sheet=0.35)
    key, keys, values = _key(rng), block.range(0), block.range(1)
    how = rng.choice((" using INDEX and MATCH", " with index/match", " without XLOOKUP"))
    made = f"INDEX({values.formula},MATCH({key.formula},{keys.formula},0))"
    return Said(_find(rng, key, keys, values, block) + how, made)


def vlookup(rng: Random) -> Said:
    """VLOOKUP over a block of columns, by the number of the column."""
    key, width = _key(rng), rng.randint(2, 4)
    first = rng.randrange(0, 5)
    start, stop = COLUMNS[first], COLUMNS[first + width - 1]
    column = rng.randint(2, width)
    block = table(rng, 1, sheet=0.45, whole=0.4)
    rows = (f"{block.first}", f"{block.last}") if block.last else ("", "")
    area = f"{start}{rows[0]}:{stop}{rows[1]}"
    says = rng.choice((
        "vlookup of {0} in {1} taking column {2}", "the value of column {2} of {1} for {0}, by vlookup",
        "the exact vlookup match of {0} in {1}, column {2}",
    ))  # fmt: skip
    made = f"VLOOKUP({key.formula},{block.prefix}{area},{column},FALSE)"
    text = says.format(key.text, area, column) + block.where(rng)
    if rng.random() < 0.25:
        miss = word(rng)
        return Said(f"{text}, showing {miss.text} on an error", f"IFERROR({made},{miss.formula})")
    return Said(text, made)


def safe_ratio(rng: Random) -> Said:
    """IFERROR around a division."""
    left, right = cells(rng, 2)
    miss = rng.choice((Said("0", "0"), Said("nothing", '""'), word(rng)))
    text = rng.choice((
        f"divide {left.text} by {right.text} and show {miss.text} on an error",
        f"compute {left.text} over {right.text}, or {miss.text} if that fails",
    ))  # fmt: skip
    return Said(text, f"IFERROR({left.formula}/{right.formula},{miss.formula})")
