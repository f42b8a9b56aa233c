"""What a request talks about: cells, ranges, sheets, words, numbers, dates and conditions.

Each part is generated in both forms at once, as the request says it and as the formula has it, so the two can't
disagree. All randomness comes from the `random.Random` that the caller passes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

COLUMNS = "ABCDEFGH"
FIRSTS = (1, 2, 2, 2, 3, 4, 5)
LASTS = (10, 12, 15, 20, 25, 30, 50, 60, 80, 99, 100, 120)
NUMBERS = (5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 90, 100, 120, 150, 200, 250, 300, 500, 750, 1000)
PLAIN_SHEETS = ("Sales", "Stock", "Orders", "Staff", "Budget", "Costs", "Log", "Prices")
QUOTED_SHEETS = ("Price List", "Team Plan", "Year End", "Raw Import")
WORDS = (
    "North", "South", "Paid", "Open", "Closed", "Done", "Late", "Red", "Blue", "Apples", "Bread", "London", "Paris",
    "Online", "Gold", "Travel", "Food", "Yes", "No", "Active", "Pending", "Shipped", "Urgent", "Normal",
)  # fmt: skip
MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip


class Said(NamedTuple):
    """A part in both forms."""

    text: str
    formula: str


@dataclass(frozen=True)
class Table:
    """A block of rows that a request's ranges share, so that ranges of one formula have equal height."""

    sheet: str  # "" for the sheet the formula is on
    first: int
    last: int  # 0: whole columns
    columns: tuple[str, ...]
    style: int  # how this request writes ranges

    def range(self, index: int, *, fixed: bool = False) -> Said:
        """The cells of one column of the table, as said and as written."""
        column = self.columns[index]
        if not self.last:
            return Said(f"column {column}", self.prefix + f"{column}:{column}")
        start, stop = f"{column}{self.first}", f"{column}{self.last}"
        spellings = (
            f"{start}:{stop}", f"{start} to {stop}", f"{start} through {stop}",
            f"column {column} rows {self.first} to {self.last}", f"rows {self.first}-{self.last} of column {column}",
        )  # fmt: skip
        if fixed and self.style > 9:
            start, stop = (f"${column}${row}" for row in (self.first, self.last))
        return Said(spellings[self.style], f"{self.prefix}{start}:{stop}")

    @property
    def prefix(self) -> str:
        """The prefix of a range on another sheet."""
        if not self.sheet:
            return ""
        return f"'{self.sheet}'!" if self.sheet in QUOTED_SHEETS else f"{self.sheet}!"

    def where(self, rng: Random) -> str:
        """The end of the request that names the sheet, empty for the formula's own sheet."""
        if not self.sheet:
            return ""
        return rng.choice((" on the {} sheet", " in sheet {}", " of the {} tab", ", all on sheet {}")).format(
            self.sheet
        )


def table(rng: Random, columns: int, *, sheet: float = 0.25, whole: float = 0.12) -> Table:
    """A table of `columns` columns; `sheet` and `whole` are the probabilities of another sheet and of whole columns."""
    names = (
        tuple(sorted(rng.sample(COLUMNS, columns)))
        if rng.random() < 0.6
        else tuple(rng.sample(COLUMNS, columns))
    )
    first = rng.choice(FIRSTS)
    last = 0 if rng.random() < whole else rng.choice(LASTS)
    name = rng.choice(PLAIN_SHEETS + QUOTED_SHEETS) if rng.random() < sheet else ""
    return Table(name, first, last, names, rng.choices(range(5), (60, 22, 18, 0, 0))[0])


def cell(rng: Random) -> Said:
    """One cell, sometimes said with the word `cell` before it."""
    name = f"{rng.choice(COLUMNS)}{rng.choice((*range(1, 10), *LASTS))}"
    return Said(rng.choice((name, name, f"cell {name}")), name)


def cells(rng: Random, count: int) -> list[Said]:
    """Distinct cells, half the time in one row, as in a formula that is filled down."""
    if rng.random() < 0.5:
        row = rng.choice((2, 2, 3, 4, 5, 6, 7, 8, 9))
        return [Said(f"{column}{row}", f"{column}{row}") for column in rng.sample(COLUMNS, count)]
    found: dict[str, Said] = {}
    while len(found) < count:
        one = cell(rng)
        found.setdefault(one.formula, one)
    return list(found.values())


def word(rng: Random) -> Said:
    """A text value; quoted in the formula, and only sometimes in the request."""
    value = rng.choice(WORDS)
    return Said(rng.choice((value, value, f'"{value}"')), f'"{value}"')


def words(rng: Random, count: int) -> list[Said]:
    """Distinct text values."""
    return [Said(rng.choice((value, f'"{value}"')), f'"{value}"') for value in rng.sample(WORDS, count)]


def number(rng: Random) -> str:
    """A threshold, whole or with one decimal."""
    return str(rng.choice(NUMBERS))


def date(rng: Random) -> Said:
    """A calendar day, day first or month first."""
    year, month, day = rng.randint(2022, 2026), rng.randint(1, 12), rng.choice((1, 5, 10, 15, 20, 25))
    name = MONTHS[month - 1]
    spellings = (f"{day} {name} {year}", f"{day} {name} {year}", f"{name} {day}, {year}")
    return Said(rng.choice(spellings), f"DATE({year},{month},{day})")


COMPARISONS = {
    ">": ("greater than", "more than", "above", "over"),
    ">=": ("at least",),
    "<": ("less than", "below", "under"),
    "<=": ("at most",),
}


def comparison(rng: Random) -> Said:
    """An ordering, `over` for `>` and the like."""
    sign = rng.choices(tuple(COMPARISONS), (4, 2, 4, 2))[0]
    return Said(rng.choice(COMPARISONS[sign]), sign)


def number_condition(rng: Random) -> Said:
    """A criterion on numbers in the form that COUNTIF takes: `">100"`, or `">"&E1` with the bound in a cell."""
    how, bound = comparison(rng), number(rng)
    if rng.random() < 0.05:
        where = cell(rng)
        return Said(f"{how.text} the value in {where.text}", f'"{how.formula}"&{where.formula}')
    return Said(f"{how.text} {bound}", f'"{how.formula}{bound}"')


def text_condition(rng: Random) -> Said:
    """A criterion on texts: equal, different, a start, an end, a part, blank or not."""
    value = word(rng)
    bare = value.formula.strip('"')
    kinds = (
        Said(rng.choice(("is", "equals", "says")) + f" {value.text}", value.formula),
        Said(rng.choice(("is not", "isn't")) + f" {value.text}", f'"<>{bare}"'),
        Said(rng.choice(("starts with", "begins with")) + f" {value.text}", f'"{bare}*"'),
        Said(rng.choice(("contains", "includes")) + f" {value.text}", f'"*{bare}*"'),
    )
    return rng.choices(kinds, (8, 3, 1.5, 1.5))[0]


def date_condition(rng: Random) -> Said:
    """A criterion on dates: after, from, before, up to."""
    day = date(rng)
    sign = rng.choice((">", ">=", "<", "<="))
    how = {
        ">": ("is after", "is later than"), ">=": ("is on or after", "is not before"),
        "<": ("is before", "is earlier than"), "<=": ("is on or before", "is no later than"),
    }[sign]  # fmt: skip
    return Said(f"{rng.choice(how)} {day.text}", f'"{sign}"&{day.formula}')


def condition(rng: Random) -> Said:
    """Any criterion, as a verb phrase: `is over 100`, `is not Done`, `is after 3 May 2024`."""
    kind = rng.random()
    if kind < 0.4:
        found = number_condition(rng)
        return Said("is " + found.text, found.formula)
    return text_condition(rng) if kind < 0.97 else date_condition(rng)
