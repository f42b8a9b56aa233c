"""What a request talks about: cells, ranges, sheets, words, numbers, dates and conditions.

Each part is made together in its two forms, what the request says and what the formula holds, so the two can't
disagree. All randomness comes from the `random.Random` that is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import NamedTuple

COLUMNS = "ABCDEFGHIJKLMNP"
PLAIN_SHEETS = ("Sales", "Stock", "Orders", "Staff", "Budget", "Costs", "Sheet2", "Sheet3", "Log", "Prices")
QUOTED_SHEETS = ("Q1 Data", "Q4 Data", "Price List", "May 2024", "North Team", "Year End", "Raw Import")
WORDS = (
    "North", "South", "East", "West", "Paid", "Open", "Closed", "Done", "Late", "Red", "Blue", "Green", "Apples",
    "Pears", "Bread", "Milk", "London", "Paris", "Berlin", "Oslo", "Online", "Retail", "Gold", "Silver", "Admin",
    "Travel", "Food", "Rent", "Yes", "No", "Active", "Pending", "Shipped", "Returned", "Urgent", "Normal",
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
    style: int  # how ranges are spelled in this request

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
        if fixed:
            start, stop = (f"${column}${row}" for row in (self.first, self.last))
        return Said(spellings[self.style], f"{self.prefix}{start}:{stop}")

    @property
    def prefix(self) -> str:
        """What stands before a range of another sheet."""
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
    """A table of `columns` columns; `sheet` and `whole` are the odds of another sheet and of whole columns."""
    names = (
        tuple(sorted(rng.sample(COLUMNS, columns)))
        if rng.random() < 0.6
        else tuple(rng.sample(COLUMNS, columns))
    )
    first = rng.choice((1, 2, 2, 2, 3, 4, 5, rng.randint(6, 30)))
    last = 0 if rng.random() < whole else first + rng.choice((rng.randint(3, 20), rng.randint(8, 99), 98))
    name = rng.choice(PLAIN_SHEETS + QUOTED_SHEETS) if rng.random() < sheet else ""
    return Table(name, first, last, names, rng.choices(range(5), (60, 12, 10, 13, 5))[0])


def cell(rng: Random) -> Said:
    """One cell, sometimes said with the word `cell` before it."""
    name = f"{rng.choice(COLUMNS)}{rng.choice((rng.randint(1, 9), rng.randint(2, 40), rng.randint(10, 150)))}"
    return Said(rng.choice((name, name, f"cell {name}")), name)


def cells(rng: Random, count: int) -> list[Said]:
    """Different cells, half the time of one row (as in a formula that is filled down)."""
    if rng.random() < 0.5:
        row = rng.choice((2, 2, 3, 4, 5, rng.randint(6, 60)))
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
    """Different text values."""
    return [Said(rng.choice((value, f'"{value}"')), f'"{value}"') for value in rng.sample(WORDS, count)]


def number(rng: Random) -> str:
    """A threshold, whole or with one decimal."""
    return rng.choice((str(rng.randint(1, 99)), str(rng.randint(1, 99) * 10), str(rng.randint(1, 20) * 50),
                       str(rng.randint(1, 90) + 0.5)))  # fmt: skip


def date(rng: Random) -> Said:
    """A calendar day, day first or month first."""
    year, month, day = rng.randint(2019, 2027), rng.randint(1, 12), rng.randint(1, 28)
    name = MONTHS[month - 1]
    spellings = (f"{day} {name} {year}", f"{day} {name} {year}", f"{name} {day}, {year}")
    return Said(rng.choice(spellings), f"DATE({year},{month},{day})")


COMPARISONS = {
    ">": ("greater than", "more than", "above", "over", "bigger than"),
    ">=": ("at least", "no less than", "greater than or equal to", "not below"),
    "<": ("less than", "below", "under", "smaller than"),
    "<=": ("at most", "no more than", "less than or equal to", "not above"),
}


def comparison(rng: Random) -> Said:
    """An ordering, `over` for `>` and the like."""
    sign = rng.choice(tuple(COMPARISONS))
    return Said(rng.choice(COMPARISONS[sign]), sign)


def number_condition(rng: Random) -> Said:
    """A criterion on numbers in the form that COUNTIF takes: `">100"`, or `">"&E1` with the bound in a cell."""
    how, bound = comparison(rng), number(rng)
    if rng.random() < 0.1:
        where = cell(rng)
        return Said(f"{how.text} the value in {where.text}", f'"{how.formula}"&{where.formula}')
    return Said(f"{how.text} {bound}", f'"{how.formula}{bound}"')


def text_condition(rng: Random) -> Said:
    """A criterion on texts: equal, different, a start, an end, a part, blank or not."""
    value = word(rng)
    bare = value.formula.strip('"')
    kinds = (
        Said(rng.choice(("is", "equals", "says", "is equal to")) + f" {value.text}", value.formula),
        Said(rng.choice(("is", "equals", "reads", "matches")) + f" {value.text}", value.formula),
        Said(
            rng.choice(("is not", "isn't", "differs from", "is anything but")) + f" {value.text}",
            f'"<>{bare}"',
        ),
        Said(rng.choice(("starts with", "begins with")) + f" {value.text}", f'"{bare}*"'),
        Said(rng.choice(("contains", "includes", "has the word")) + f" {value.text}", f'"*{bare}*"'),
        Said(rng.choice(("ends with", "ends in")) + f" {value.text}", f'"*{bare}"'),
        Said(rng.choice(("is not blank", "is filled in", "isn't empty")), '"<>"'),
    )
    return rng.choices(kinds, (4, 4, 3, 1.5, 1.5, 1, 1))[0]


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
    return text_condition(rng) if kind < 0.9 else date_condition(rng)
