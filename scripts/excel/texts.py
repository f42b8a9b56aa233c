"""Requests whose answer is a text or a date."""

from __future__ import annotations

from random import Random

from .parts import Said, cell, cells, date, table, word, words

COUNTS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def _many(rng: Random, count: int) -> str:
    """A small number as digits or as a word."""
    return rng.choice((str(count), COUNTS[count]))


def slice_of(rng: Random) -> Said:
    """LEFT, RIGHT, MID."""
    where, count = cell(rng), rng.randint(2, 10)
    many = _many(rng, count)
    if rng.random() < 0.35:
        start = rng.randint(2, 12)
        text = rng.choice((
            f"{many} characters of {where.text} starting at position {start}",
            f"the {many} letters of {where.text} from position {start}",
        ))  # fmt: skip
        return Said(text, f"MID({where.formula},{start},{count})")
    name, side = rng.choice(
        (("LEFT", "first"), ("LEFT", "leftmost"), ("RIGHT", "last"), ("RIGHT", "rightmost"))
    )
    return Said(
        f"the {side} {many} {rng.choice(('characters', 'letters', 'digits'))} of {where.text}",
        f"{name}({where.formula},{count})",
    )


def changed(rng: Random) -> Said:
    """UPPER, LOWER, PROPER, TRIM, LEN, on a cell or on a slice of one."""
    name, says = rng.choice((
        ("UPPER", ("{} in upper case", "{} in capitals")),
        ("LOWER", ("{} in lower case", "{} in small letters")),
        ("PROPER", ("{} with each word capitalised", "{} in title case")),
        ("TRIM", ("{} without extra spaces", "{} with stray spaces removed")),
        ("LEN", ("the length of {}", "how many characters are in {}")),
    ))  # fmt: skip
    inner = slice_of(rng) if rng.random() < 0.35 else cell(rng)
    made = Said(rng.choice(says).format(inner.text), f"{name}({inner.formula})")
    if name in ("UPPER", "LOWER", "PROPER") and rng.random() < 0.25:
        made = Said(f"{made.text} and without extra spaces", f"TRIM({made.formula})")
    return made


def joined(rng: Random) -> Said:
    """Cells joined by `&`."""
    left, right = cells(rng, 2)
    name, sign = rng.choice((
        ("a space", " "), ("a comma", ","), ("a dash", "-"), ("a slash", "/"), ("an underscore", "_"), ("a colon", ":"),
    ))  # fmt: skip
    text = rng.choice((
        f"{left.text} and {right.text} joined with {name}",
        f"{left.text} followed by {name} and {right.text}",
        f"{left.text} and {right.text} with {name} between them",
    ))  # fmt: skip
    return Said(text, f'{left.formula}&"{sign}"&{right.formula}')


def initials(rng: Random) -> Said:
    """The first letter of one cell before another."""
    left, right = cells(rng, 2)
    return Said(
        f"the first letter of {left.text}, then a dot and a space, then {right.text}",
        f'LEFT({left.formula},1)&". "&{right.formula}',
    )


def joined_range(rng: Random) -> Said:
    """CONCAT and TEXTJOIN over a range."""
    block = table(rng, 1, whole=0.0)
    where = block.range(0)
    if rng.random() < 0.35:
        return Said(f"all texts of {where.text}{block.where(rng)} glued together", f"CONCAT({where.formula})")
    name, sign = rng.choice(
        (("commas", ", "), ("semicolons", "; "), ("dashes", "-"), ("spaces", " "), ("slashes", "/"))
    )
    text = rng.choice((
        f"a list of {where.text}{block.where(rng)} separated by {name}",
        f"{where.text}{block.where(rng)} joined with {name}, skipping blanks",
    ))  # fmt: skip
    return Said(text, f'TEXTJOIN("{sign}",TRUE,{where.formula})')


def replaced(rng: Random) -> Said:
    """SUBSTITUTE."""
    where = cell(rng)
    if rng.random() < 0.5:
        old, new = words(rng, 2)
        return Said(
            f"{where.text} with {old.text} replaced by {new.text}",
            f"SUBSTITUTE({where.formula},{old.formula},{new.formula})",
        )
    name, sign = rng.choice((("dashes", "-"), ("spaces", " "), ("commas", ","), ("dots", ".")))
    return Said(
        rng.choice((f"{where.text} without the {name}", f"{where.text} with all {name} removed")),
        f'SUBSTITUTE({where.formula},"{sign}","")',
    )


def found(rng: Random) -> Said:
    """SEARCH, alone or as a test."""
    where, value = cell(rng), word(rng)
    if rng.random() < 0.5:
        return Said(
            f"the position of {value.text} inside {where.text}", f"SEARCH({value.formula},{where.formula})"
        )
    return Said(
        f"a test whether {where.text} contains {value.text}",
        f"ISNUMBER(SEARCH({value.formula},{where.formula}))",
    )


def before_sign(rng: Random) -> Said:
    """The part of a text before a sign."""
    where = cell(rng)
    name, sign = rng.choice((("dash", "-"), ("comma", ","), ("at sign", "@"), ("space", " ")))
    return Said(
        f"the part of {where.text} before the first {name}",
        f'LEFT({where.formula},FIND("{sign}",{where.formula})-1)',
    )


def date_part(rng: Random) -> Said:
    """YEAR, MONTH, DAY, WEEKDAY."""
    where = cell(rng)
    name, says = rng.choice((
        ("YEAR", "the year of the date in {}"), ("MONTH", "the month number of {}"), ("DAY", "the day of the month of {}"),
        ("YEAR", "which year {} falls in"), ("MONTH", "which month {} falls in"), ("WEEKDAY", "the weekday number of {}"),
    ))  # fmt: skip
    return Said(says.format(where.text), f"{name}({where.formula})")


def month_end(rng: Random) -> Said:
    """EOMONTH and EDATE."""
    where, months = cell(rng), rng.randint(1, 10)
    many = _many(rng, months) + (" month" if months == 1 else " months")
    return rng.choice((
        Said(f"the last day of the month of {where.text}", f"EOMONTH({where.formula},0)"),
        Said(f"the end of the month {many} after {where.text}", f"EOMONTH({where.formula},{months})"),
        Said(f"the end of the month {many} before {where.text}", f"EOMONTH({where.formula},-{months})"),
        Said(f"the date {many} after {where.text}", f"EDATE({where.formula},{months})"),
        Said(f"the date {many} before {where.text}", f"EDATE({where.formula},-{months})"),
        Said(f"the first day of the month of {where.text}", f"EOMONTH({where.formula},-1)+1"),
    ))  # fmt: skip


def between_dates(rng: Random) -> Said:
    """DATEDIF, NETWORKDAYS, a plain difference."""
    left, right = cells(rng, 2)
    if rng.random() < 0.3:
        right = date(rng)
    ends = f"{left.formula},{right.formula}"
    span = rng.choice((f"between {left.text} and {right.text}", f"from {left.text} to {right.text}"))
    return rng.choice((
        Said(f"the full years {span}", f'DATEDIF({ends},"y")'),
        Said(f"the full months {span}", f'DATEDIF({ends},"m")'),
        Said(f"the days {span}", f"{right.formula}-{left.formula}"),
        Said(f"the working days {span}", f"NETWORKDAYS({ends})"),
        Said(f"how many business days there are {span}", f"NETWORKDAYS({ends})"),
    ))  # fmt: skip


def date_ahead(rng: Random) -> Said:
    """WORKDAY, a sum of days, a fixed day, a day put together from parts."""
    where, days, day = cell(rng), rng.randint(2, 90), date(rng)
    parts = cells(rng, 3)
    return rng.choice((
        Said(f"the date {days} working days after {where.text}", f"WORKDAY({where.formula},{days})"),
        Said(f"the date {days} days after {where.text}", f"{where.formula}+{days}"),
        Said(f"the date {days} days from today", f"TODAY()+{days}"),
        Said(f"how many days are left until {day.text}", f"{day.formula}-TODAY()"),
        Said(f"the date {day.text}", day.formula),
        Said(
            f"a date with year {parts[0].text}, month {parts[1].text} and day {parts[2].text}",
            f"DATE({parts[0].formula},{parts[1].formula},{parts[2].formula})",
        ),
    ))  # fmt: skip


def shown_date(rng: Random) -> Said:
    """TEXT with a date format."""
    where = cell(rng)
    says, code = rng.choice((
        ("the month name of {}", "mmmm"), ("the weekday name of {}", "dddd"), ("{} shown as year-month-day", "yyyy-mm-dd"),
        ("{} shown as day/month/year", "dd/mm/yyyy"), ("{} as text with two decimals", "0.00"),
    ))  # fmt: skip
    return Said(says.format(where.text), f'TEXT({where.formula},"{code}")')


TEXTS = ((slice_of, 3), (changed, 4), (joined, 3), (initials, 0.7), (joined_range, 2), (replaced, 2), (found, 1.5),
         (before_sign, 1))  # fmt: skip
DATES = ((date_part, 1.5), (month_end, 2.5), (between_dates, 3), (date_ahead, 3), (shown_date, 1))
